"""What is read of Function documents, in step with the models that authors are held to."""

from __future__ import annotations

import msgspec

from faaslite.api.function import Async, Cron
from gateway.jobs.functions import FunctionView, Queueing, packages_in, packages_of, queueing, triggers


def function(spec: dict, **metadata) -> FunctionView:
    document = {"metadata": {"name": "f", "namespace": "team", "uid": "u1", **metadata}, "spec": spec}
    return msgspec.json.decode(msgspec.json.encode(document), type=FunctionView)


def test_defaults_are_those_of_the_models():
    (found,) = triggers(function({"cron": [{"schedule": "@hourly"}]}))
    model = Cron.model_validate({"schedule": "@hourly"})
    for field in ("overlap", "missed", "jitter", "paused", "method", "path", "payload"):
        assert getattr(found, field) == getattr(model, field), field
    assert found.zone == model.time_zone
    assert queueing(function({})) == Queueing(Async().retries, Async().max_age)


def test_everything_is_read():
    spec = {"cron": [
        {"schedule": "@daily"},
        {"name": "nightly", "schedule": "0 3 * * *", "timeZone": "Europe/Oslo", "overlap": "Queue", "missed": "all", "jitter": "5m",
         "paused": True, "method": "PUT", "path": "/x", "payload": {"full": True}},
    ], "async": {"retries": 0, "maxAge": "6m"}}  # fmt: skip
    found = function(spec)
    first, second = triggers(found)
    assert (first.name, first.key) == ("cron-1", ("team", "f", "cron-1"))
    assert (second.name, second.zone, second.overlap, second.missed, second.jitter) == (
        "nightly",
        "Europe/Oslo",
        "Queue",
        "all",
        300.0,
    )
    assert (second.paused, second.method, second.path, second.payload) == (True, "PUT", "/x", {"full": True})
    assert queueing(found) == Queueing(0, 360.0)


def test_one_that_can_not_be_read_does_not_hide_the_others():
    spec = {"cron": [
        {"schedule": "at noon"}, {"schedule": "@hourly", "timeZone": "Mars/Base"}, "nonsense", {}, {"name": "good", "schedule": "@hourly"},
    ], "async": {"retries": "many"}}  # fmt: skip
    assert [each.name for each in triggers(function(spec))] == ["good"]
    assert queueing(function(spec)) == Queueing()
    assert list(triggers(function({"cron": "daily"}))) == []


def test_since_is_known_of_functions_that_were_never_changed():
    cron = {"cron": [{"schedule": "@hourly"}]}
    (new,) = triggers(function(cron, creationTimestamp="2026-06-01T00:00:00Z", generation=1))
    (changed,) = triggers(function(cron, creationTimestamp="2026-06-01T00:00:00Z", generation=2))
    assert (new.since, changed.since) == (1780272000.0, None)


def test_packages_of_functions_and_of_pods():
    assert packages_of(function({"package": {"digest": "sha256:a", "layer": "sha256:b"}})) == {"sha256:a", "sha256:b"}
    assert packages_of(function({"package": {"digest": "sha256:a", "layer": ""}})) == {"sha256:a"}
    assert packages_of(function({})) == set()
    built = FunctionView(
        spec={"package": {"digest": "sha256:a"}}, status={"layers": [{"key": "k", "digest": "sha256:c"}, 5]}
    )
    assert packages_of(built) == {"sha256:a", "sha256:c"}
    volumes = [
        {"name": "package", "csi": {"driver": "packages.faaslite.dev", "volumeAttributes": {"digest": "sha256:a"}}},
        {"name": "other", "csi": {"driver": "other.io", "volumeAttributes": {"digest": "sha256:x"}}},
        {"name": "tmp", "emptyDir": {}},
    ]
    assert packages_in({"spec": {"volumes": volumes}}) == {"sha256:a"}
    assert packages_in({}) == set()
