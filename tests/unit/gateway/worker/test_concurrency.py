from __future__ import annotations

from gateway.worker.concurrency import Instance, Revision


def revision(*names: str, limit: int = 0) -> Revision:
    found = Revision("a/r-00001", "a", "r", 0.0)
    if limit:
        found.limit = limit
    for name in names:
        found.add(Instance(name, None, name))
    return found


def test_the_least_loaded_instance_is_taken():
    found = revision("a", "b", "c")
    taken = [found.acquire() for _ in range(6)]
    assert sorted(each.key for each in taken) == ["a", "a", "b", "b", "c", "c"]
    found.release(taken[1])
    assert found.acquire() is taken[1]


def test_the_limit_is_hard():
    found = revision("a", "b", limit=2)
    taken = [found.acquire() for _ in range(4)]
    assert found.acquire() is None
    found.release(taken[0])
    assert found.acquire() is taken[0]
    assert revision(limit=1).acquire() is None


def test_an_instance_aside_gets_no_calls_until_it_is_back():
    found = revision("a", "b")
    aside = found.instances["a"]
    assert found.set_aside(aside) and not found.set_aside(aside)
    assert {found.acquire().key for _ in range(3)} == {"b"}
    assert found.restore(aside) and not found.restore(aside)
    assert found.acquire() is aside


def test_a_removed_instance_does_not_come_back():
    found = revision("a")
    instance = found.acquire()
    found.set_aside(instance)
    assert found.remove("a") is instance
    assert not found.restore(instance)
    assert found.acquire() is None
    assert found.remove("a") is None
    found.release(instance)
    assert instance.in_flight == 0


def test_what_is_coming():
    found = revision(limit=10)
    assert found.coming() == 0
    found.asked = 1
    assert found.coming() == 10
    found.asked = 11
    assert found.coming() == 20
    unlimited = revision()
    unlimited.asked = 3
    assert unlimited.coming() == 6, "ask again when it has doubled"


def test_idle_means_nothing_is_known_of_it():
    found = revision()
    assert found.idle
    for name, value in (("routed", True), ("starting", {"a"}), ("instances", {"a": None}), ("waiting", {None: None})):
        before = getattr(found, name)
        setattr(found, name, value)
        assert not found.idle
        setattr(found, name, before)
    found.load.arrive(1.0)
    assert not found.idle
