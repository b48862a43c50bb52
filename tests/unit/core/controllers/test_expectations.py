from core.controllers.expectations import TIMEOUT, Expectations


def test_creations_are_counted_down() -> None:
    expected = Expectations()
    assert expected.satisfied("a", 0.0)
    expected.expect("a", 0.0, creations=2)
    expected.created("a")
    assert not expected.satisfied("a", 1.0)
    expected.created("a")
    assert expected.satisfied("a", 1.0)


def test_deletions_are_told_apart_by_uid() -> None:
    expected = Expectations()
    expected.expect("a", 0.0, deletions=["u", "v"])
    expected.deleted("a", "u")
    expected.deleted("a", "u")
    expected.deleted("a", "stranger")
    assert not expected.satisfied("a", 1.0)
    expected.deleted("a", "v")
    assert expected.satisfied("a", 1.0)


def test_more_events_than_expected_do_no_harm() -> None:
    expected = Expectations()
    expected.created("a", 5)
    expected.expect("a", 0.0, creations=1)
    assert not expected.satisfied("a", 0.0)
    expected.created("a", 7)
    expected.expect("a", 0.0, creations=1)
    assert not expected.satisfied("a", 0.0)


def test_what_was_missed_is_given_up() -> None:
    expected = Expectations()
    expected.expect("a", 0.0, creations=1)
    assert not expected.satisfied("a", TIMEOUT)
    assert expected.satisfied("a", TIMEOUT + 1)


def test_keys_are_apart_and_can_be_forgotten() -> None:
    expected = Expectations()
    expected.expect("a", 0.0, creations=1)
    assert expected.satisfied("b", 0.0)
    expected.forget("a")
    assert expected.satisfied("a", 0.0)
