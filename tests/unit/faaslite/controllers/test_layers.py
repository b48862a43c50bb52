"""What is decided about builds, from the Pods that there are."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from core.api.views import Pod
from faaslite.api.function import validate
from faaslite.api.layers import Wanted
from faaslite.api.names import ANNOTATION_BUILD_ASKED, LABEL_BUILD, LABEL_FUNCTION
from faaslite.controllers.layers import build_pod, decide, known_layers, pod_name, remembered, stale, with_layer
from faaslite.controllers.resources import pod_template, template_hash
from faaslite.controllers.status import Verdict, new_status, ready_condition

DIGEST, LAYER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
WANTED = Wanted("k" * 32, "monday")
GOOD = {"exitCode": 0, "message": json.dumps({"digest": LAYER, "size": 1}), "finishedAt": "2026-01-01T00:00:00Z"}


def pod(phase: str, *, asked: str = "monday", key: str = WANTED.key, ended: Any = None, **more: Any) -> Pod:
    statuses = [{"name": "build", "state": {"terminated": ended} if ended else more.pop("state", {})}]
    metadata = {"name": f"build-{asked}", "labels": {LABEL_BUILD: key}, "annotations": {ANNOTATION_BUILD_ASKED: asked}}
    metadata |= more.pop("metadata", {})
    return msgspec.convert(
        {"metadata": metadata, "status": {"phase": phase, "containerStatuses": statuses, **more}}, Pod
    )


def failed(message: str = "requirements.txt: no", asked: str = "monday", **more: Any) -> Pod:
    return pod("Failed", asked=asked, ended={"exitCode": 1, "message": message, **more})


@pytest.mark.parametrize(
    ("pods", "status", "reason", "said"),
    [
        ([], "Unknown", "BuildPending", "is to be built by the Pod build-"),
        ([pod("Pending")], "Unknown", "BuildPending", "is starting"),
        ([pod("Running", asked="sunday")], "Unknown", "Building", "the Pod build-sunday builds"),
        ([pod("Pending", state={"waiting": {"reason": "ErrImagePull", "message": "none"}})], "False", "ErrImagePull", "none"),
        ([failed()], "False", "BuildFailed", "requirements.txt: no"),
        ([failed(asked="sunday")], "Unknown", "BuildPending", "is to be built"),
        ([failed(asked="sunday"), pod("Running")], "Unknown", "Building", "build-monday"),
        ([failed(reason="OOMKilled")], "False", "OOMKilled", "ran out of memory, of which it has 512Mi"),
        ([pod("Failed", reason="DeadlineExceeded")], "False", "BuildFailed", "took longer than 960 s"),
        ([pod("Failed", reason="Evicted", message="disk")], "False", "BuildFailed", "disk"),
        ([pod("Succeeded", ended={**GOOD, "message": "{}"})], "False", "BuildFailed", "named no layer"),
        ([pod("Succeeded", ended={**GOOD, "message": '{"digest": "../x"}'})], "False", "BuildFailed", "named no layer"),
        ([failed(), pod("Succeeded", asked="sunday", ended=GOOD)], "True", "LayerReady", LAYER),
    ],
)  # fmt: skip
def test_what_the_condition_says(pods: list[Pod], status: str, reason: str, said: str) -> None:
    found = decide(WANTED, "", pods)
    assert (found.verdict.status, found.verdict.reason) == (status, reason)
    assert said in found.verdict.message
    assert found.create == (said.startswith("is to be built"))
    assert bool(found.digest) == (status == "True")


def test_a_layer_that_somebody_remembers_needs_no_pod() -> None:
    found = decide(WANTED, LAYER, [failed()])
    assert (found.digest, found.create, found.pod) == (LAYER, False, "")
    assert known_layers({"layers": remembered({}, "k", LAYER)}) == {"k": LAYER}
    many: dict[str, Any] = {}
    for number in range(20):
        many["layers"] = remembered(many, f"k{number}", LAYER)
    assert [each["key"] for each in many["layers"]] == [f"k{number}" for number in range(19, 11, -1)]
    assert remembered(many, "k15", LAYER)[0]["key"] == "k15" and len(remembered(many, "k15", LAYER)) == 8
    assert known_layers({"layers": "?"}) == {}


def test_pods_go_when_their_news_are_old() -> None:
    now = 1767225600.0 + 100  # 100 s after GOOD ended
    done = pod("Succeeded", ended=GOOD)
    known = [WANTED.key]
    assert stale([done], WANTED, [], known, now) == ([], 200.0)
    assert stale([done], WANTED, [], known, now + 200) == ([done], None)
    assert stale([done], WANTED, [], [], now + 200) == ([], None)  # its layer isn't remembered yet
    assert stale([done], None, [], [], now + 200) == ([done], None)
    old = failed(asked="sunday")
    assert stale([failed(), old], WANTED, [], known, now) == ([old], None)
    assert stale([old], WANTED, [Wanted(WANTED.key, "sunday")], known, now) == ([], None)
    running = pod("Running", key="other")
    assert stale([running], WANTED, [], known, now)[0] == [running]
    assert stale([running], WANTED, [Wanted("other", "whenever")], known, now)[0] == []
    assert stale([pod("Running")], WANTED, [], known, now)[0] == []
    assert len(stale([pod("Running")], None, [], known, now)[0]) == 1
    leaving = pod("Running", key="other", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert stale([leaving], WANTED, [], known, now)[0] == []


def function(requirements: str = "six", **package: Any) -> Any:
    spec = {"package": {"digest": DIGEST, "requirements": requirements, **package}}
    return validate({"metadata": {"name": "hello", "namespace": "team"}, "spec": spec})


def test_the_pod_is_bounded_and_no_instance() -> None:
    document = build_pod(function(), WANTED, "uid", "http://gateway")
    found = msgspec.convert(document, Pod)
    assert found.name == pod_name(WANTED) != pod_name(Wanted(WANTED.key, "tuesday"))
    assert LABEL_FUNCTION not in found.metadata.labels and found.metadata.labels[LABEL_BUILD] == WANTED.key
    assert found.metadata.controller is not None and found.metadata.controller.uid == "uid"
    spec = found.spec
    assert (spec.restart_policy, spec.active_deadline_seconds) == ("Never", 960)
    assert spec.automount_service_account_token is False
    container = document["spec"]["containers"][0]
    assert container["resources"]["limits"] == {"memory": "512Mi"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["command"] == ["faaslite-build"] and container["image"] == "faaslite/python"
    assert [each["name"] for each in document["spec"]["volumes"]] == ["work", "token"]
    with_files = build_pod(function("./own.whl"), WANTED, "uid", "http://gateway")
    assert with_files["spec"]["volumes"][2]["csi"]["volumeAttributes"] == {"digest": DIGEST}


def test_a_revision_is_of_the_layer_not_of_where_it_came_from() -> None:
    named = validate(
        {"metadata": {"name": "hello", "namespace": "team"}, "spec": {"package": {"digest": DIGEST, "layer": LAYER}}}
    )
    built = with_layer(function(), LAYER)
    assert template_hash(pod_template(built)) == template_hash(pod_template(named))


def test_while_it_is_built_the_newest_revision_serves_on_and_is_said_to() -> None:
    yes = Verdict("True", "PackageSet")
    bad = Verdict("False", "BuildFailed", "no such package")
    found = ready_condition(yes, yes, "f-00001", "f-00001", None, ["f-00001"], bad)
    assert found == Verdict("False", "BuildFailed", "no such package (f-00001 keeps serving)")
    done = Verdict("True", "LayerReady")
    assert ready_condition(yes, yes, "f-00001", "f-00001", None, ["f-00001"], done).reason == "RevisionReady"


def test_a_condition_of_what_is_no_longer_asked_for_goes() -> None:
    old = new_status({}, {"build": {"key": "k"}}, {"Built": Verdict("True", "LayerReady")}, 1, 0.0)
    assert old is not None and old["build"] == {"key": "k"}
    new = new_status(old, {"build": None}, {"Built": None}, 2, 0.0)
    assert new == {"observedGeneration": 2, "conditions": []}
