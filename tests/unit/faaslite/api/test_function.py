"""What a Function may say, and how a wrong one is refused."""

from __future__ import annotations

from typing import Any

import pytest

from faaslite.api.crd import function_definition
from faaslite.api.durations import parse_duration
from faaslite.api.function import FunctionInvalid, FunctionSpec, validate

DIGEST = "sha256:" + "a" * 64


def function(name: str = "hello", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "faaslite.dev/v1", "kind": "Function", "metadata": {"name": name}, "spec": spec}


def faults(document: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(FunctionInvalid) as error:
        validate(document)
    assert all("\n" not in each and ": " in each for each in error.value.errors)
    return error.value.errors


def test_defaults() -> None:
    spec = validate(function()).spec
    assert (spec.runtime, spec.concurrency, spec.timeout) == ("python", 10, 30.0)
    assert (spec.scale.min, spec.scale.max, spec.scale.initial, spec.scale.window, spec.scale.idle) == (
        0,
        20,
        1,
        60.0,
        30.0,
    )
    assert spec.target == 7.0
    assert (spec.async_.retries, spec.async_.max_age, spec.async_.dead_letter) == (3, 21600.0, True)
    assert spec.traffic == ()


def test_everything_that_the_design_shows_is_read() -> None:
    found = validate(
        function(
            "thumbnails",
            runtime="python",
            handler="app:make",
            package={"digest": DIGEST},
            env=[{"name": "SIZE", "value": "256"}],
            secrets=["db"],
            resources={"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            concurrency=10,
            timeout="1m30s",
            scale={"min": 0, "max": 20, "target": 7, "metric": "concurrency", "window": "60s", "idle": 30},
            http={"visibility": "public", "routes": [{"host": "img.example.com", "path": "/thumb", "methods": ["GET"]}]},
            cron=[
                {"name": "nightly", "schedule": "0 3 * * *", "timeZone": "Europe/Oslo", "overlap": "Skip", "missed": "last",
                 "payload": {"full": True}},
                {"schedule": "@every 5s"},
            ],
            traffic=[{"revision": "latest", "percent": 90}, {"revision": 2, "percent": 10}],
            **{"async": {"retries": 3, "maxAge": "6h", "deadLetter": True}},
        )
    )  # fmt: skip
    assert found.spec.timeout == 90.0
    assert found.spec.cron[0].time_zone == "Europe/Oslo"
    assert found.spec.cron[1].name == "cron-2"
    assert found.spec.traffic[1].revision == "2"
    assert found.spec.async_.max_age == 21600.0


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"cron": [{"schedule": "61 * * * *"}]}, 'spec.cron[0].schedule: "61 * * * *" is not a cron expression: '),
        ({"cron": [{"schedule": "0 0 30 2 *"}]}, "spec.cron[0].schedule: "),
        ({"cron": [{"name": "a"}]}, "spec.cron[0].schedule: is required"),
        ({"cron": [{"schedule": "@daily", "timeZone": "Mars"}]}, "spec.cron[0].timeZone: "),
        ({"cron": [{"name": "a", "schedule": "@daily"}] * 2}, 'spec.cron[1].name: "a" is there twice'),
        ({"runtime": "perl"}, 'spec.runtime: "perl" is not one of python, node or image'),
        ({"runtime": "python3.8"}, 'spec.runtime: "python3.8" is too old: 3.11 is the oldest Python'),
        ({"handlr": "a:b"}, "spec.handlr: is not a field of a Function"),
        ({"handler": "a b"}, "spec.handler: "),
        ({"runtime": "image"}, "spec.image: is required"),
        ({"runtime": "image", "image": "x", "package": {"digest": DIGEST}}, "spec.package: is not used"),
        ({"image": "x"}, "spec.image: is only used"),
        ({"package": {"digest": "md5:1"}}, "spec.package.digest: "),
        ({"package": {"layer": DIGEST}}, "spec.package.digest: is required"),
        ({"env": [{"name": "A", "value": 3}]}, 'spec.env[0].value: must be text: write "3" in quotes'),
        ({"env": [{"name": "A", "value": True}]}, 'spec.env[0].value: must be text: write "true" in quotes'),
        ({"env": [{"name": "FAASLITE_X"}]}, "spec.env[0].name: "),
        ({"env": [{"name": "PORT"}]}, "spec.env[0].name: "),
        ({"env": "A=1"}, "spec.env: must be a list, not text"),
        ({"secrets": ["No Name"]}, "spec.secrets[0]: "),
        ({"resources": {"limits": {"cpu": "lots"}}}, 'spec.resources.limits: cpu "lots" is not a quantity'),
        ({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}}, "spec.resources.requests.cpu: 2 is over its limit"),
        ({"resources": {"limits": {"memory": "1"}}}, "spec.resources.limits.memory: 1 is less than 6Mi"),
        ({"concurrency": -1}, "spec.concurrency: -1 is under 0"),
        ({"timeout": "soon"}, 'spec.timeout: "soon" is not a duration'),
        ({"timeout": 0}, "spec.timeout: 0 must be over 0"),
        ({"timeout": True}, "spec.timeout: "),
        ({"scale": {"min": 5, "max": 2}}, "spec.scale.min: 5 is over spec.scale.max, 2"),
        ({"scale": {"initial": 5, "max": 2}}, "spec.scale.initial: "),
        ({"scale": {"target": 0}}, "spec.scale.target: "),
        ({"traffic": [{"revision": "latest", "percent": 90}]}, "spec.traffic: percentages sum to 90"),
        ({"traffic": [{"revision": "latest", "percent": 50}] * 2}, "spec.traffic[1].revision: "),
        ({"async": {"retries": 1.5}}, "spec.async.retries: 1.5 is not a whole number"),
    ],
)  # fmt: skip
def test_faults_are_one_line_with_a_path(spec: dict[str, Any], expected: str) -> None:
    assert any(each.startswith(expected) for each in faults(function(**spec))), faults(function(**spec))


@pytest.mark.parametrize("name", ["Hello", "a_b", "-a", "a-", "a.b", "a" * 51, ""])
def test_names_are_short_dns_labels(name: str) -> None:
    assert faults(function(name))[0].startswith("metadata.name: ")


def test_the_longest_name_is_taken() -> None:
    assert validate(function("a" * 50)).name == "a" * 50


def test_every_fault_is_reported() -> None:
    assert len(faults(function("A", runtime="perl", timeout="x"))) == 3


def test_a_document_without_spec_is_refused() -> None:
    assert faults({"metadata": {"name": "a"}}) == ("spec: is required",)
    assert faults({"metadata": {"name": "a"}, "spec": []}) == ("spec: must be a map, not a list",)


def test_max_zero_is_no_bound() -> None:
    assert validate(function(scale={"min": 5, "max": 0})).spec.scale.min == 5


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30s", 30), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400), ("2d", 172800), (7, 7), ("7", 7)],
)
def test_durations(value: object, seconds: float) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "s", "1x", "-3s", -3, None, float("nan"), True, "1s 2s"])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


def test_the_definition_knows_every_field_of_the_model() -> None:
    schema = function_definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    aliases = {each.alias for each in FunctionSpec.model_fields.values()}
    assert set(schema["properties"]["spec"]["properties"]) == aliases


def test_the_definition_has_a_status_and_no_scale() -> None:
    definition = function_definition()
    version = definition["spec"]["versions"][0]
    assert version["subresources"] == {"status": {}}
    assert [each["name"] for each in version["additionalPrinterColumns"] if not each.get("priority")] == [
        "Ready", "URL", "Replicas", "Revision", "Age",
    ]  # fmt: skip
    assert definition["metadata"]["name"] == "functions.faaslite.dev"
    assert definition["spec"]["names"]["shortNames"] == ["fn"]
