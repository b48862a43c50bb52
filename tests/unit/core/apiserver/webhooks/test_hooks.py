"""Which webhooks want to see what, and what answers mean."""

from __future__ import annotations

import base64
import json

import pytest

from core.api.kinds import DEPLOYMENT, NODE, POD, Kind
from core.apiserver.authn import User
from core.apiserver.webhooks.hooks import Target, read
from core.apiserver.webhooks.reviews import BadAnswer, denial, question, verdict

WIDGET = Kind("x.io", "v2", "Widget", "widgets")


def _hook(rule=None, **fields):
    base = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
    hook = {"name": "a.b.c", "clientConfig": {"url": "https://x"}, "rules": [{**base, **(rule or {})}], **fields}
    return read({"metadata": {"name": "conf"}, "webhooks": [hook]})[0]


@pytest.mark.parametrize(
    ("rule", "target", "wanted"),
    [
        ({}, Target("CREATE", POD), "v1"),
        ({}, Target("CREATE", POD, "status"), ""),
        ({"operations": ["UPDATE", "DELETE"]}, Target("CREATE", POD), ""),
        ({"operations": ["UPDATE", "DELETE"]}, Target("DELETE", POD), "v1"),
        ({"apiGroups": [""]}, Target("CREATE", DEPLOYMENT), ""),
        ({"apiGroups": ["", "apps"]}, Target("CREATE", DEPLOYMENT), "v1"),
        ({"apiVersions": ["v1beta1"]}, Target("CREATE", DEPLOYMENT), ""),
        ({"resources": ["pods"]}, Target("CREATE", POD), "v1"),
        ({"resources": ["pods"]}, Target("CREATE", POD, "binding"), ""),
        ({"resources": ["pods/*"]}, Target("CREATE", POD, "binding"), "v1"),
        ({"resources": ["pods/*"]}, Target("CREATE", POD), "v1"),
        ({"resources": ["*/scale"]}, Target("UPDATE", DEPLOYMENT, "scale"), "v1"),
        ({"resources": ["*/scale"]}, Target("UPDATE", DEPLOYMENT, "status"), ""),
        ({"resources": ["*/*"]}, Target("UPDATE", DEPLOYMENT, "status"), "v1"),
        ({"scope": "Cluster"}, Target("CREATE", POD), ""),
        ({"scope": "Cluster"}, Target("CREATE", NODE), "v1"),
        ({"scope": "Namespaced"}, Target("CREATE", NODE), ""),
        ({"apiVersions": ["v1"]}, Target("CREATE", WIDGET, "", ("v1",)), "v1"),
    ],
)  # fmt: skip
def test_rules(rule, target, wanted):
    assert _hook(rule).version(target) == wanted


def test_exact_takes_only_the_version_that_was_asked():
    target = Target("CREATE", WIDGET, "", ("v1",))
    assert _hook({"apiVersions": ["v1"]}, matchPolicy="Exact").version(target) == ""
    assert _hook({"apiVersions": ["v2"]}, matchPolicy="Exact").version(target) == "v2"


def test_selectors():
    hook = _hook(
        objectSelector={"matchLabels": {"a": "b"}},
        namespaceSelector={"matchExpressions": [{"key": "team", "operator": "Exists"}]},
    )
    assert hook.selects([{}, {"a": "b"}], {"team": "x"})  # what an object was counts as well as what it becomes
    assert not hook.selects([{"a": "c"}], {"team": "x"})
    assert not hook.selects([{"a": "b"}], {})
    assert hook.selects([{"a": "b"}], None)


def _answer(uid="u", **response):
    return json.dumps(
        {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": {"uid": uid, **response}}
    ).encode()


def test_a_question():
    asked = question(
        "u", Kind("x.io", "v1", "Widget", "widgets"), "", "UPDATE", User("ann", ("g",)), asked=WIDGET, namespace="ns", name="w",
        new={"kind": "Widget"}, old={}, dry_run=True, options={"dryRun": ["All"]},
    )["request"]  # fmt: skip
    assert asked["kind"] == {"group": "x.io", "version": "v1", "kind": "Widget"}
    assert asked["requestKind"]["version"] == "v2" and asked["requestResource"]["resource"] == "widgets"
    assert asked["userInfo"] == {"username": "ann", "groups": ["g"]}
    assert asked["options"] == {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"]}
    assert (asked["namespace"], asked["name"], asked["dryRun"], "subResource" in asked) == ("ns", "w", True, False)


def test_answers():
    patch = [{"op": "add", "path": "/a", "value": 1}]
    found = verdict(
        _answer(allowed=True, patchType="JSONPatch", patch=base64.b64encode(json.dumps(patch).encode()).decode(), warnings=["w"], auditAnnotations={"k": "v"}),
        "u",
    )  # fmt: skip
    assert found.allowed and found.patch == patch and found.warnings == ("w",) and found.annotations == {"k": "v"}
    assert verdict(_answer(allowed="yes"), "u").allowed is False


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"<html>", "received invalid webhook response"),
        (b"[]", "expected webhook response of kind AdmissionReview, got list"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1"}', "got admission.k8s.io/v1beta1"),
        (b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}', "webhook response was absent"),
        (_answer("other", allowed=True), 'expected response.uid="u", got "other"'),
        (_answer(allowed=True, patch="W10="), "but not response.patchType"),
        (_answer(allowed=True, patchType="JSONPatch"), "but not response.patch"),
        (_answer(allowed=True, patch="W10=", patchType="Merge"), 'invalid response.patchType of "Merge"'),
        (_answer(allowed=True, patch="&&", patchType="JSONPatch"), "response.patch"),
        (_answer(allowed=True, patch="e30=", patchType="JSONPatch"), "is no list of operations"),
    ],
)
def test_answers_that_are_none(body, why):
    with pytest.raises(BadAnswer, match=why.replace("[", r"\[")):
        verdict(body, "u")


@pytest.mark.parametrize(
    ("status", "code", "reason", "message"),
    [
        ({}, 400, "", 'admission webhook "a.b.c" denied the request without explanation'),
        ({"message": "no", "code": 403, "reason": "Forbidden"}, 403, "Forbidden", 'admission webhook "a.b.c" denied the request: no'),
        ({"reason": "Because"}, 400, "Because", 'admission webhook "a.b.c" denied the request: Because'),
        ({"message": "no", "code": 200}, 400, "", 'admission webhook "a.b.c" denied the request: no'),
    ],
)  # fmt: skip
def test_denials(status, code, reason, message):
    error = denial("a.b.c", status)
    assert (error.status_code, error.status_reason, error.message) == (code, reason, message)
