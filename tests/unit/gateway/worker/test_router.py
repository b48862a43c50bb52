from __future__ import annotations

from random import Random

import msgspec
import pytest

from core.api.views import Pod
from core.client.readiness import Hint
from faaslite.api.names import PORT
from gateway.worker.concurrency import UNLIMITED
from gateway.worker.http1 import parse_request_line
from gateway.worker.router import HINTS, UNCONFIRMED, Place, Router
from gateway.worker.stats import Stats
from gateway.worker.views import Function


class Connections:
    """Stands for the pool of one address."""

    def __init__(self, host, port):
        self.address = (host, port)
        self.retired = False

    def retire(self):
        self.retired = True


class Table:
    def __init__(self):
        self.pools = []
        self.told = []
        self.router = Router(
            Stats(0.0),
            timeout=30.0,
            clock=lambda: 0.0,
            make_pool=self.make_pool,
            on_instance=lambda each: self.told.append(each.key),
        )
        self._pods = {}

    def make_pool(self, host, port):
        self.pools.append(Connections(host, port))
        return self.pools[-1]

    def pod(self, name="p", *, uid="1", ip="127.0.0.9", ready="True", deleted=None, phase="Running"):
        document = {
            "metadata": {
                "name": name, "namespace": "default", "uid": uid, "deletionTimestamp": deleted,
                "labels": {"faaslite.dev/function": "hello", "faaslite.dev/revision": "hello-00001"},
            },
            "status": {"phase": phase, "podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
        }  # fmt: skip
        new = msgspec.convert(document, Pod)
        self.router.on_pod(self._pods.get(name), new)
        self._pods[name] = new

    def hint(self, name="p", *, uid="1", ip="127.0.0.9", at=0.0):
        self.router.on_hint(Hint(f"default/{name}", uid, ip, at), self._pods.get(name))

    def forget(self, now):
        self.router.forget_hints(now, lambda key: self._pods.get(key.partition("/")[2]))

    def delete_pod(self, name="p"):
        self.router.on_pod(self._pods.pop(name), None)

    @property
    def revision(self):
        return self.router.revisions.get("default/hello-00001")


def function(*traffic, name="hello", namespace="default", message=""):
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": namespace},
            "status": {
                "traffic": [{"revision": revision, "percent": percent} for revision, percent in traffic],
                "conditions": [{"type": "Ready", "status": "False", "message": message}],
            },
        },
        Function,
    )


@pytest.mark.parametrize(
    ("target", "place"),
    [
        (b"/healthz", Place.HEALTH),
        (b"/healthz?verbose", Place.HEALTH),
        (b"/metrics", Place.METRICS),
        (b"/system/cron", Place.JOBS),
        (b"/async-function/a", Place.JOBS),
        (b"/system", Place.NOWHERE),
        (b"/systemic/x", Place.NOWHERE),
        (b"/function/", Place.NOWHERE),
        (b"/", Place.NOWHERE),
    ],
)
def test_places(target, place):
    assert Table().router.find(parse_request_line(b"GET %s HTTP/1.1" % target), b"any") is place


def test_names_with_and_without_namespace():
    table = Table()
    table.router.on_function(None, function(("hello-00001", 100)))
    table.router.on_function(None, function(("hello-00001", 100), namespace="team"))
    found = table.router.functions
    assert set(found) == {b"hello", b"hello.default", b"hello.team"}
    assert found[b"hello"] is found[b"hello.default"] is not found[b"hello.team"]
    assert found[b"hello.team"].single.key == "team/hello-00001"


def test_a_new_state_replaces_the_record_and_a_deleted_function_leaves_none():
    table = Table()
    first, second = function(("hello-00001", 100)), function(("hello-00002", 100))
    table.router.on_function(None, first)
    record = table.router.functions[b"hello"]
    table.router.on_function(first, second)
    assert table.router.functions[b"hello"] is not record
    assert list(table.router.revisions) == ["default/hello-00002"], "the old one has neither traffic nor Pods"
    table.router.on_function(second, None)
    assert not table.router.functions and not table.router.revisions


def test_a_change_of_nothing_that_matters_here_keeps_the_record():
    table = Table()
    first, counted = function(("hello-00001", 100)), function(("hello-00001", 100))
    counted.metadata.resource_version = "7"
    table.router.on_function(None, first)
    record = table.router.functions[b"hello"]
    table.router.on_function(first, counted)
    assert table.router.functions[b"hello"] is record
    again = function(("hello-00001", 100))
    again.metadata.uid = "another"
    table.router.on_function(counted, again)
    assert table.router.functions[b"hello"] is not record


def test_a_revision_without_traffic_is_kept_while_it_has_pods():
    table = Table()
    table.pod()
    first, second = function(("hello-00001", 100)), function(("hello-00002", 100))
    table.router.on_function(None, first)
    table.router.on_function(first, second)
    assert not table.revision.routed
    table.delete_pod()
    assert table.revision is None


def test_shares():
    table = Table()
    table.router.on_function(None, function(("a-1", 90), ("a-2", 10), ("a-3", 0)))
    route, random = table.router.functions[b"hello"], Random(7)
    keys = [route.choose(random).key for _ in range(1000)]
    assert route.single is None
    assert keys.count("default/a-3") == 0
    assert 60 < keys.count("default/a-2") < 140


def test_no_traffic_has_a_reason():
    table = Table()
    table.router.on_function(None, function(message="no package"))
    route = table.router.functions[b"hello"]
    assert route.choose(Random(1)) is None and route.message == "no package"


def test_limits_and_timeouts_have_defaults():
    table = Table()
    table.router.on_function(None, function(("hello-00001", 100)))
    assert table.revision.limit == UNLIMITED
    assert table.router.revisions["default/hello-00001"].timeout == 30.0


def test_a_pod_becomes_an_instance_when_it_is_ready():
    table = Table()
    table.pod(ready="False", ip="")
    assert table.revision.starting == {"default/p"} and not table.revision.instances
    table.pod()
    assert not table.revision.starting and list(table.revision.instances) == ["default/p"]
    assert table.pools[0].address == ("127.0.0.9", PORT)
    assert table.told == ["default/hello-00001"]
    table.pod()
    assert len(table.pools) == 1, "nothing changed"


@pytest.mark.parametrize(
    "change", [{"ready": "False"}, {"deleted": "2026-01-01T00:00:00Z"}, {"phase": "Failed"}, {"ip": ""}]
)
def test_an_instance_that_is_not_ready_or_goes_gets_no_calls(change):
    table = Table()
    table.pod()
    instance = table.revision.instances["default/p"]
    table.pod(**change)
    assert instance.gone and table.pools[0].retired
    assert table.revision is None or not table.revision.ready


def test_a_pod_of_the_same_name_or_at_another_address_is_another_instance():
    table = Table()
    table.pod()
    table.pod(uid="2")
    table.pod(uid="2", ip="127.0.0.10")
    assert [each.retired for each in table.pools] == [True, True, False]
    assert len(table.revision.ready) == 1


def test_a_pod_event_brings_back_an_instance_that_was_set_aside():
    table = Table()
    table.pod()
    instance = table.revision.instances["default/p"]
    table.revision.set_aside(instance)
    table.pod()
    assert table.revision.ready == [instance] and len(table.told) == 2


def table_with(*functions, domain="fn.example"):
    table = Table()
    table.router = Router(
        Stats(0.0),
        timeout=30.0,
        clock=lambda: 0.0,
        make_pool=table.make_pool,
        on_instance=lambda each: None,
        domain=domain,
    )
    for number, (name, spec, status) in enumerate(functions):
        document = {
            "metadata": {"name": name, "namespace": "default", "creationTimestamp": f"2026-01-01T00:00:0{number}Z"},
            "spec": {"http": spec}, "status": {"traffic": [{"revision": f"{name}-00002"}], **status},
        }  # fmt: skip
        table.router.on_function(None, msgspec.convert(document, Function))
    return table


def found(table, target, host=b"any", method=b"GET"):
    answer = table.router.find(parse_request_line(b"%s %s HTTP/1.1" % (method, target)), host)
    return (answer[0].name, answer[1]) if isinstance(answer, tuple) else answer


def test_revisions_by_number_and_tags_are_found_and_forgotten_with_the_function():
    rows = [{"revision": "a-00001", "timeout": 5.0}, {"revision": "a-00002"}]
    traffic = [
        {"revision": "a-00002", "percent": 100},
        {"revision": "a-00001", "percent": 0, "tags": ["old"], "timeout": 5.0},
    ]
    table = table_with(("a", {}, {"revisions": rows, "traffic": traffic}))
    for name in (b"a:1", b"a:00001", b"a.default:1", b"a@old", b"a.default@old"):
        route, _ = table.router.find(parse_request_line(b"GET /function/%s/x HTTP/1.1" % name), b"any")
        assert route.single.key == "default/a-00001"
        assert route.single.timeout == 5.0
        assert table.router.functions[name] is route
    assert table.router.functions[b"a"].single.key == "default/a-00002"
    for name in (b"a:3", b"a:x", b"a@new", b"b:1", b"a:", b"a@"):
        assert found(table, b"/function/" + name) is None
    changed = {"metadata": {"name": "a", "namespace": "default"}, "status": {"traffic": traffic[:1]}}
    table.router.on_function(None, msgspec.convert(changed, Function))
    assert found(table, b"/function/a:1") is None
    assert b"a@old" not in table.router.functions


def test_hosts_of_functions_with_tags_and_numbers():
    row = {"revision": "a-00002", "percent": 100, "tags": ["canary"]}
    table = table_with(("a", {}, {"traffic": [row]}), ("x--y", {}, {}))
    assert found(table, b"/p?q", b"a.default.fn.example") == ("a", b"/p?q")
    assert found(table, b"/metrics", b"A.Default.FN.example:8080") == ("a", b"/metrics")
    assert found(table, b"/", b"canary--a.default.fn.example") == ("a", b"/")
    assert found(table, b"/", b"2--a.default.fn.example") == ("a", b"/")
    assert found(table, b"/", b"x--y.default.fn.example") == ("x--y", b"/")
    for host in (b"b.default.fn.example", b"a.fn.example", b"z--a.default.fn.example", b".fn.example"):
        assert found(table, b"/", host) is None


def test_the_longest_prefix_of_a_host_wins_then_the_older_function():
    table = table_with(
        ("short", {"routes": [{"host": "img.example", "path": "/"}]}, {}),
        ("long", {"routes": [{"host": "img.example", "path": "/thumb", "methods": ["GET"]}]}, {}),
        ("late", {"routes": [{"host": "img.example", "path": "/thumb"}]}, {}),
        ("anyhost", {"routes": [{"path": "/api/"}]}, {}),
    )
    assert found(table, b"/thumb/1?s=2", b"IMG.example:80") == ("long", b"/thumb/1?s=2")
    assert found(table, b"/thumb", b"img.example", b"HEAD") == ("long", b"/thumb")
    assert found(table, b"/thumb", b"img.example", b"POST") == ("late", b"/thumb")
    assert found(table, b"/thumbs", b"img.example") == ("short", b"/thumbs")
    assert found(table, b"/api/x", b"other") == ("anyhost", b"/api/x")
    assert found(table, b"/api", b"other") is Place.NOWHERE
    assert found(table, b"/metrics", b"other") is Place.METRICS
    gone = table.router.functions[b"long"]
    table.router.on_function(msgspec.convert({"metadata": {"name": gone.name, "namespace": "default"}}, Function), None)
    assert found(table, b"/thumb/1", b"img.example") == ("late", b"/thumb/1")


def test_a_hint_makes_an_instance_that_the_api_then_confirms():
    table = Table()
    table.pod(ready="False", ip="")
    assert not table.revision.instances
    table.hint()
    instance = table.revision.instances["default/p"]
    assert table.told and instance.pool.address == ("127.0.0.9", PORT) and not table.revision.starting
    table.pod(ready="False", ip="")  # an event from before
    assert table.revision.instances["default/p"] is instance
    table.pod()
    table.forget(UNCONFIRMED + 1)
    assert table.revision.instances["default/p"] is instance and not instance.pool.retired
    table.pod(ready="False")
    assert instance.pool.retired and not table.revision.instances, "from here on the API's word counts"
    table.hint()
    table.delete_pod()
    assert table.revision is None


def test_a_hint_may_come_before_its_pod_does():
    table = Table()
    table.hint()
    assert table.revision is None
    table.pod(ready="False", ip="")
    assert list(table.revision.instances) == ["default/p"]


def test_a_hint_of_another_pod_of_the_name_says_nothing_of_this_one():
    table = Table()
    table.pod(ready="False", ip="")
    table.hint(uid="2")
    assert not table.revision.instances
    table.pod(ready="False", ip="", uid="2")
    assert list(table.revision.instances) == ["default/p"]


@pytest.mark.parametrize("change", [{"deleted": "2026-01-01T00:00:00Z"}, {"phase": "Failed"}])
def test_a_pod_that_ends_is_no_instance_whatever_was_hinted(change):
    table = Table()
    table.pod(ready="False", ip="")
    table.hint()
    table.pod(ready="False", **change)
    table.pod(ready="False", **change)
    assert not table.revision


def test_a_hint_that_is_taken_back_or_not_confirmed_is_nothing():
    table = Table()
    table.pod(ready="False", ip="")
    table.hint()
    table.hint(ip="")
    assert not table.revision.instances and table.revision.starting
    table.hint(at=5.0)
    table.forget(5.0 + UNCONFIRMED)
    assert table.revision.instances
    table.forget(5.1 + UNCONFIRMED)
    assert not table.revision.instances
    table.pod()
    table.hint(ip="")
    assert table.revision.instances, "what the API has said isn't taken back by a hint"


def test_hints_are_bounded():
    table = Table()
    for number in range(HINTS + 1):
        table.hint(f"x{number}")
    table.pod("x0", ready="False", ip="")
    assert not table.revision.instances
    table.pod(f"x{HINTS}", ready="False", ip="")
    assert table.revision.instances
