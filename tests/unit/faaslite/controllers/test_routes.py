from __future__ import annotations

from base64 import b64encode

import msgspec
import pytest

from core.api.views import Secret
from faaslite.api.function import FunctionInvalid, validate
from faaslite.controllers.routes import conflict, invocation_keys, route_keys


def spec(*routes):
    return {"http": {"routes": list(routes)}}


def test_the_older_function_has_the_route():
    mine = spec({"host": "A.example", "path": "/x"})
    theirs = spec({"host": "a.example", "path": "/x", "methods": ["GET"]})
    others = [("default/mine", "2026-01-02T00:00:00Z", mine), ("default/theirs", "2026-01-01T00:00:00Z", theirs)]
    assert "taken by default/theirs" in conflict("default/mine", "2026-01-02T00:00:00Z", mine, others)
    assert conflict("default/theirs", "2026-01-01T00:00:00Z", theirs, others) == ""


def test_methods_that_differ_and_other_paths_are_no_conflict():
    mine = spec({"path": "/x", "methods": ["POST"]}, {"path": "/y"})
    theirs = spec({"path": "/x", "methods": ["GET"]}, {"path": "/y/z"})
    assert conflict("a/b", "2", mine, [("a/a", "1", theirs)]) == ""


@pytest.mark.parametrize(
    ("mine", "theirs", "says"),
    [
        ({"host": "A.example", "path": "/pay"}, {"host": "a.example"}, "the host a.example"),
        ({"path": "/shop/pay"}, {"path": "/shop"}, "/shop/pay without a host"),
        ({"path": "/shops"}, {"path": "/shop"}, ""),
        ({"host": "b.example"}, {"host": "a.example"}, ""),
        ({"path": "/shop"}, {"path": "/shop/pay"}, ""),
    ],
)
def test_another_namespace_gets_between_nobody_and_its_callers(mine, theirs, says):
    found = conflict("b/thief", "2", spec(mine), [("a/shop", "1", spec(theirs))])
    assert says in found if says else found == ""
    assert (
        conflict(
            "a/pay", "2", spec({"host": "a.example", "path": "/pay"}), [("a/shop", "1", spec({"host": "a.example"}))]
        )
        == ""
    )


@pytest.mark.parametrize("broken", [None, {}, {"http": None}, {"http": {"routes": 3}}, {"http": {"routes": [None]}}])
def test_specs_that_are_invalid_have_no_routes(broken):
    assert route_keys(broken) == []


def secret(name, **values):
    data = {key: b64encode(value.encode()).decode() for key, value in values.items()}
    return msgspec.convert({"metadata": {"name": name}, "data": data}, Secret)


def test_keys_open_what_they_are_for():
    function = validate(
        {"metadata": {"name": "f"}, "spec": {"runtime": "image", "image": "i", "http": {"visibility": "key"}}}
    )
    good = "a" * 64
    rows = invocation_keys(
        function,
        [
            secret("all", hash=good, functions="*"),
            secret("own", hash=good, functions="e,f", expires="2027-01-01T00:00:00+00:00"),
            secret("other", hash=good, functions="g"),
            secret("short", hash="abc", functions="*"),
            secret("odd", hash=good, functions="*", expires="soon"),
        ],
    )
    assert rows == [{"name": "all", "hash": good}, {"name": "own", "hash": good, "expires": 1798761600.0}]
    public = function.model_copy(
        update={
            "spec": function.spec.model_copy(
                update={"http": function.spec.http.model_copy(update={"visibility": "public"})}
            )
        }
    )
    assert invocation_keys(public, [secret("all", hash=good, functions="*")]) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"http": {"cors": {"origins": ["*"], "credentials": True}}}, "credentials"),
        ({"http": {"cors": {"origins": ["example.com"]}}}, "is not an origin"),
        ({"traffic": [{"percent": 100}, {"percent": 0, "tag": "7"}]}, "is a number"),
        ({"traffic": [{"percent": 100, "tag": "a"}, {"revision": "2", "tag": "a"}]}, "is there twice"),
    ],
)
def test_what_a_spec_must_not_say(change, text):
    with pytest.raises(FunctionInvalid, match=text):
        validate({"metadata": {"name": "f"}, "spec": {"runtime": "image", "image": "i", **change}})
