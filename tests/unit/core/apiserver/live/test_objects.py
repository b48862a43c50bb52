"""Create, read, update, patch and delete: what every kind has in common."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from core.apiserver import dispatch
from core.apiserver.authn import User
from core.apiserver.request import ApiRequest
from core.errors import AlreadyExists, BadRequest, Conflict, Forbidden, Invalid, MethodNotAllowed, NotFound, Timeout

CM = "/api/v1/namespaces/default/configmaps"


async def test_a_created_object_gets_what_the_server_gives(admin):
    made = await admin.post(CM, {"metadata": {"name": "a", "uid": "mine", "generation": 7}, "data": {"k": "v"}})
    meta = made["metadata"]
    assert (made["apiVersion"], made["kind"], meta["namespace"]) == ("v1", "ConfigMap", "default")
    assert re.fullmatch(r"[0-9a-f-]{36}", meta["uid"]) and meta["creationTimestamp"].endswith("Z")
    assert int(meta["resourceVersion"]) > 0 and "generation" not in meta
    assert await admin.get(f"{CM}/a") == made


async def test_names_are_checked_in_the_words_of_kubernetes(admin):
    with pytest.raises(Invalid) as without:
        await admin.post(CM, {"metadata": {}})
    assert without.value.message == (
        'ConfigMap "" is invalid: metadata.name: Required value: name or generateName is required'
    )
    with pytest.raises(
        Invalid,
        match=r'ConfigMap "A_b" is invalid: metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain',
    ):
        await admin.post(CM, {"metadata": {"name": "A_b"}})
    with pytest.raises(Invalid, match='Service "1a" is invalid: metadata.name: Invalid value: "1a": a DNS-1035 label'):
        await admin.post(
            "/api/v1/namespaces/default/services", {"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 80}]}}
        )
    with pytest.raises(AlreadyExists, match='configmaps "a" already exists'):
        await asyncio.gather(*(admin.post(CM, {"metadata": {"name": "a"}}) for _ in range(2)))
    with pytest.raises(BadRequest, match="namespace of the provided object does not match"):
        await admin.post(CM, {"metadata": {"name": "b", "namespace": "other"}})
    with pytest.raises(BadRequest, match="resourceVersion should not be set on objects to be created"):
        await admin.post(CM, {"metadata": {"name": "b", "resourceVersion": "1"}})
    for never in ("0", "v1"):
        made = await admin.post(CM, {"metadata": {"generateName": "b", "resourceVersion": never}})
        assert made["metadata"]["resourceVersion"].isdigit(), "what is no version is let pass"


async def test_generated_names_have_five_characters(admin, monkeypatch):
    made = await admin.post(CM, {"metadata": {"generateName": "job-"}})
    assert re.fullmatch(r"job-[bcdfghjklmnpqrstvwxz2456789]{5}", made["metadata"]["name"])
    suffixes = iter(["same", "same", "same", "other"])
    monkeypatch.setattr("core.apiserver.registry.generic.generate", lambda base: base + next(suffixes))
    names = [(await admin.post(CM, {"metadata": {"generateName": "x-"}}))["metadata"]["name"] for _ in range(2)]
    assert names == ["x-same", "x-other"], "a collision is tried again"


async def test_missing_things_are_404_with_details(admin):
    with pytest.raises(NotFound) as missing:
        await admin.get("/apis/apps/v1/namespaces/default/replicasets/x")
    assert missing.value.status()["message"] == 'replicasets.apps "x" not found'
    assert missing.value.details == {"name": "x", "group": "apps", "kind": "replicasets"}
    with pytest.raises(NotFound, match="the server could not find the requested resource"):
        await admin.get("/api/v1/namespaces/default/nopes")
    with pytest.raises(NotFound, match='namespaces "nowhere" not found'):
        await admin.post("/api/v1/namespaces/nowhere/configmaps", {"metadata": {"name": "a"}})
    with pytest.raises(MethodNotAllowed):
        await admin.put(CM, {})
    with pytest.raises(MethodNotAllowed):
        await admin.post("/api/v1/configmaps", {"metadata": {"name": "a"}})


async def test_an_update_of_an_old_version_is_a_conflict(admin):
    old = await admin.post(CM, {"metadata": {"name": "a"}})
    new = await admin.put(f"{CM}/a", {**old, "data": {"k": "1"}})
    assert int(new["metadata"]["resourceVersion"]) > int(old["metadata"]["resourceVersion"])
    with pytest.raises(Conflict) as lost:
        await admin.put(f"{CM}/a", {**old, "data": {"k": "2"}})
    assert lost.value.message == (
        'Operation cannot be fulfilled on configmaps "a": the object has been modified; '
        "please apply your changes to the latest version and try again"
    )
    del old["metadata"]["resourceVersion"]
    assert (await admin.put(f"{CM}/a", {**old, "data": {"k": "3"}}))["data"] == {"k": "3"}
    with pytest.raises(Conflict):
        await admin.patch(f"{CM}/a", {"metadata": {"resourceVersion": "1"}, "data": {"k": "4"}})


async def test_a_write_that_changes_nothing_keeps_the_version(admin, store):
    made = await admin.post(CM, {"metadata": {"name": "a"}, "data": {"k": "v", "l": "w"}})
    before = store.revision
    assert await admin.put(f"{CM}/a", {**made, "data": {"l": "w", "k": "v"}}) == made
    assert await admin.patch(f"{CM}/a", {"data": {"k": "v"}}) == made
    assert store.revision == before


async def test_unpinned_patches_that_race_all_win(admin):
    await admin.post(CM, {"metadata": {"name": "a"}})
    await asyncio.gather(*(admin.patch(f"{CM}/a", {"data": {str(number): "x"}}) for number in range(20)))
    assert len((await admin.get(f"{CM}/a"))["data"]) == 20


async def test_what_an_update_may_not_say(admin):
    made = await admin.post(CM, {"metadata": {"name": "a"}})
    with pytest.raises(BadRequest, match=r"name of the object \(b\) does not match the name on the URL \(a\)"):
        await admin.put(f"{CM}/a", {"metadata": {"name": "b"}})
    with pytest.raises(Invalid, match='metadata.uid: Invalid value: "other": field is immutable'):
        await admin.put(f"{CM}/a", {"metadata": {**made["metadata"], "uid": "other"}})
    with pytest.raises(Invalid, match="metadata.labels: Invalid value"):
        await admin.patch(f"{CM}/a", {"metadata": {"labels": {"a b": "c"}}})
    with pytest.raises(BadRequest, match="Secret"):
        await admin.put(f"{CM}/a", {"kind": "Secret", "metadata": {"name": "a"}})
    kept = await admin.put(
        f"{CM}/a", {"metadata": {"name": "a", "creationTimestamp": "2001-01-01T00:00:00Z"}, "data": {"k": "v"}}
    )
    assert kept["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    assert kept["metadata"]["uid"] == made["metadata"]["uid"]


async def test_a_json_patch_whose_test_fails_is_422(admin):
    made = await admin.post(CM, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    path = "/metadata/resourceVersion"
    good = [
        {"op": "test", "path": path, "value": made["metadata"]["resourceVersion"]},
        {"op": "remove", "path": "/data/k"},
    ]
    assert "k" not in (await admin.patch(f"{CM}/a", good, "json-patch")).get("data", {})
    with pytest.raises(Invalid):
        await admin.patch(f"{CM}/a", good, "json-patch")


async def test_dry_run_does_all_but_store(admin, store):
    before = store.revision
    tried = await admin.post(CM, {"metadata": {"name": "a"}}, dryRun="All")
    assert tried["metadata"]["uid"] and "resourceVersion" not in tried["metadata"]
    with pytest.raises(NotFound):
        await admin.get(f"{CM}/a")
    await admin.post(CM, {"metadata": {"name": "a"}})
    assert (await admin.patch(f"{CM}/a", {"data": {"k": "v"}}, dryRun="All"))["data"] == {"k": "v"}
    await admin.delete(f"{CM}/a", dryRun="All")
    assert "data" not in await admin.get(f"{CM}/a")
    assert store.revision == before + 1
    with pytest.raises(Invalid, match="dryRun: Unsupported value"):
        await admin.post(CM, {"metadata": {"name": "b"}}, dryRun="Some")


async def test_field_validation(admin, api):
    body = {"metadata": {"name": "a"}, "datta": {"k": "v"}}
    with pytest.raises(BadRequest, match='strict decoding error: unknown field "datta"'):
        await admin.post(CM, body, fieldValidation="Strict")
    assert "datta" not in await admin.post(CM, body, fieldValidation="Ignore")
    with pytest.raises(Invalid, match="fieldValidation: Unsupported value"):
        await admin.post(CM, body, fieldValidation="Maybe")


async def test_deletions_answer_the_object_or_a_status(admin, pod):
    made = await admin.post(CM, {"metadata": {"name": "a"}})
    status = await admin.delete(f"{CM}/a")
    assert (status["kind"], status["status"]) == ("Status", "Success")
    assert status["details"] == {"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]}
    pods = "/api/v1/namespaces/default/pods"
    await admin.post(pods, pod("p"))
    assert (await admin.delete(f"{pods}/p"))["kind"] == "Pod"
    with pytest.raises(NotFound):
        await admin.delete(f"{CM}/a")


async def test_preconditions_of_deletions(admin):
    made = await admin.post(CM, {"metadata": {"name": "a"}})
    for wrong in ({"uid": "other"}, {"resourceVersion": "1"}):
        with pytest.raises(Conflict, match='Operation cannot be fulfilled on configmaps "a": Precondition failed'):
            await admin.delete(f"{CM}/a", {"preconditions": wrong})
    right = {"uid": made["metadata"]["uid"], "resourceVersion": made["metadata"]["resourceVersion"]}
    assert (await admin.delete(f"{CM}/a", {"preconditions": right}))["status"] == "Success"


async def test_finalizers_hold_an_object_until_the_last_is_taken(admin):
    await admin.post(CM, {"metadata": {"name": "a", "finalizers": ["x/one"]}})
    marked = await admin.delete(f"{CM}/a")
    assert marked["kind"] == "ConfigMap" and marked["metadata"]["deletionTimestamp"]
    with pytest.raises(Invalid, match="no new finalizers can be added if the object is being deleted"):
        await admin.patch(f"{CM}/a", {"metadata": {"finalizers": ["x/one", "x/two"]}})
    again = await admin.delete(f"{CM}/a")
    assert again["metadata"] == marked["metadata"], "a second deletion changes nothing"
    await admin.patch(f"{CM}/a", {"metadata": {"finalizers": None}})
    with pytest.raises(NotFound):
        await admin.get(f"{CM}/a")


@pytest.mark.parametrize(("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")])
async def test_propagation_policies_leave_their_finalizer(admin, policy, finalizer):
    await admin.post(CM, {"metadata": {"name": "a"}})
    marked = await admin.delete(f"{CM}/a", {"propagationPolicy": policy})
    assert marked["metadata"]["finalizers"] == [finalizer]
    assert (await admin.delete(f"{CM}/a", {"propagationPolicy": "Background"}))["status"] == "Success"


async def test_a_collection_is_deleted_by_selector(admin):
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "1"}), ("c", {})):
        await admin.post(CM, {"metadata": {"name": name, "labels": labels}})
    gone = await admin.delete(CM, labelSelector="x=1")
    assert [each["metadata"]["name"] for each in gone["items"]] == ["a", "b"]
    assert [each["metadata"]["name"] for each in (await admin.get(CM))["items"]] == ["c"]


async def test_namespaces_end_when_their_content_is_said_to_be_gone(admin):
    made = await admin.post("/api/v1/namespaces", {"metadata": {"name": "team"}})
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "team"}
    assert (made["spec"], made["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})
    going = await admin.delete("/api/v1/namespaces/team")
    assert going["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden) as refused:
        await admin.post("/api/v1/namespaces/team/configmaps", {"metadata": {"name": "a"}})
    assert refused.value.causes[0]["reason"] == "NamespaceTerminating"
    await admin.patch("/api/v1/namespaces/team", {"spec": {"finalizers": None}})
    assert (await admin.get("/api/v1/namespaces/team"))["spec"]["finalizers"] == ["kubernetes"]
    going["spec"] = {"finalizers": []}
    await admin.put("/api/v1/namespaces/team/finalize", going)
    with pytest.raises(NotFound):
        await admin.get("/api/v1/namespaces/team")
    with pytest.raises(Forbidden, match="this namespace may not be deleted"):
        await admin.delete("/api/v1/namespaces/default")


async def test_a_patch_of_the_status_checks_what_it_changes_and_keeps_the_rest(admin):
    pods = "/api/v1/namespaces/default/pods"
    container = {"name": "c", "image": "i", "env": [{"name": "A", "value": "1"}]}
    made = await admin.post(pods, {"metadata": {"name": "p"}, "spec": {"containers": [container]}})
    status = {"phase": "Running", "podIP": "10.0.0.1", "nothing": 1, "reason": None, "message": ""}
    ready = await admin.patch(f"{pods}/p/status", {"metadata": {"uid": made["metadata"]["uid"]}, "status": status})
    assert ready["spec"] == made["spec"]
    assert ready["status"] == {**made["status"], "phase": "Running", "podIP": "10.0.0.1"}
    assert await admin.get(f"{pods}/p") == ready
    assert await admin.patch(f"{pods}/p/status", {"status": {"phase": "Running"}}) == ready, "nothing was written"
    for bad in ({"status": {"phase": 7}}, {"status": "Running"}, {"spec": {"containers": "c"}}, {"spec": []}):
        with pytest.raises(Invalid, match=r'^ "" is invalid: patch: Invalid value: .*: json: cannot unmarshal'):
            await admin.patch(f"{pods}/p/status", bad)
    with pytest.raises(Invalid, match=r': strict decoding error: unknown field "status.nothing"$'):
        await admin.patch(f"{pods}/p/status", {"status": {"nothing": 1}}, fieldValidation="Strict")
    with pytest.raises(BadRequest, match="merge patch is an object"):
        await admin.patch(f"{pods}/p/status", [])
    gone = await admin.patch(f"{pods}/p/status", {"status": {"podIP": None}, "spec": {"nodeName": "ignored"}})
    assert "podIP" not in gone["status"] and gone["spec"] == made["spec"]


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ({"metadata": {"labels": "invalid"}}, '"map[metadata:map[labels:invalid]]": cannot restore map from string'),
        ({"spec": {"containers": "x"}}, '"map[spec:map[containers:x]]": cannot restore slice from string'),
        ({"spec": [None, True, 1.5]}, '"map[spec:[<nil> true 1.5]]": cannot restore struct from: slice'),
        ({"spec": {"nodeName": 7}}, '"map[spec:map[nodeName:7]]": cannot convert int64 to string'),
        ({"spec": {"priority": "7"}}, '"map[spec:map[priority:7]]": unrecognized type: int32'),
        ({"spec": {"hostNetwork": {}}}, '"map[spec:map[hostNetwork:map[]]]": unrecognized type: bool'),
    ],
)
async def test_a_patch_of_wrong_types_is_invalid_in_the_words_of_its_way(admin, pod, patch, why):
    pods = "/api/v1/namespaces/default/pods"
    await admin.post(pods, pod("p"))
    with pytest.raises(Invalid) as found:
        await admin.patch(f"{pods}/p", patch, "strategic-merge-patch")
    assert found.value.message == f' "" is invalid: patch: Invalid value: {why}'
    assert found.value.details == {
        "causes": [{"reason": "FieldValueInvalid", "message": f"Invalid value: {why}", "field": "patch"}]
    }
    with pytest.raises(Invalid, match=r"patch: Invalid value: .*\\\"name\\\":\\\"p\\\".*: json: cannot unmarshal "):
        await admin.patch(f"{pods}/p", patch)
    operations = [{"op": "add", "path": f"/{key}", "value": value} for key, value in patch.items()]
    with pytest.raises(Invalid, match="patch: Invalid value: "):
        await admin.patch(f"{pods}/p", operations, "json-patch")


async def test_an_owner_that_is_named_twice_counts_once(api):
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u1"}
    other = {**owner, "uid": "u2"}
    at = "/api/v1/namespaces/default/configmaps"

    async def ask(method: str, path: str, owners: list[dict[str, str]]) -> tuple[list[dict[str, str]], list[str]]:
        data = json.dumps({"metadata": {"name": "m", "ownerReferences": owners}}).encode()
        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = ApiRequest(User("a", ("system:masters",)), dispatch.parse(method, path, {}), {}, data, content)
        reply = await api.answer(request, applied=True)
        return json.loads(reply.body)["metadata"]["ownerReferences"], request.warnings

    for method, path in (("POST", at), ("PUT", f"{at}/m"), ("PATCH", f"{at}/m")):
        owners, warnings = await ask(method, path, [owner, other, owner, {**owner, "controller": True}, other])
        assert owners == [owner, other, {**owner, "controller": True}]
        assert len(warnings) == 1 and warnings[0].endswith("; duplicate UID(s) observed: u1, u2")
        assert await ask("PATCH", f"{at}/m", [owner, other]) == ([owner, other], [])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/namespaces/default/services", {"spec": {"ports": [{"port": 80}]}}),
        ("/api/v1/namespaces/default/endpoints", {"subsets": []}),
        ("/api/v1/namespaces/default/limitranges", {"spec": {"limits": []}}),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", {"rules": []}),
        ("/apis/coordination.k8s.io/v1/namespaces/default/leases", {"spec": {"holderIdentity": "x"}}),
    ],
)
async def test_objects_of_some_kinds_are_made_by_an_update_of_what_there_isnt(admin, path, body):
    for known in ({"uid": "u"}, {"resourceVersion": "7"}):
        with pytest.raises(NotFound):
            await admin.put(f"{path}/new", {"metadata": {"name": "new", **known}, **body})
    with pytest.raises(BadRequest, match="does not match the name on the URL"):
        await admin.put(f"{path}/new", {"metadata": {"name": "other"}, **body})
    made = await admin.put(f"{path}/new", body)
    assert await admin.get(f"{path}/new") == made and made["metadata"]["uid"]
    with pytest.raises(NotFound):
        await admin.put(f"{CM}/new", {"metadata": {"name": "new"}})


async def test_a_get_at_a_revision_that_isnt_reached_waits_for_it(admin):
    await admin.post(CM, {"metadata": {"name": "m"}})
    version = int((await admin.get(f"{CM}/m", resourceVersion="0"))["metadata"]["resourceVersion"])
    assert await admin.get(f"{CM}/m", resourceVersion=str(version))
    with pytest.raises(Timeout, match=f"Too large resource version: {version + 100}, current: "):
        await admin.get(f"{CM}/m", resourceVersion=str(version + 100))
    with pytest.raises(Invalid, match='resourceVersion: Invalid value: "x"'):
        await admin.get(f"{CM}/m", resourceVersion="x")
    with pytest.raises(BadRequest, match='strconv.ParseInt: parsing "x": invalid syntax'):
        await admin.get(CM, timeoutSeconds="x")


async def test_a_deletion_says_once_what_becomes_of_dependents(admin):
    await admin.post(CM, {"metadata": {"name": "m"}})
    with pytest.raises(
        Invalid, match="propagationPolicy: .* orphanDependents and deletionPropagation cannot be both set"
    ):
        await admin.delete(f"{CM}/m", {"propagationPolicy": "Orphan", "orphanDependents": True})
    await admin.delete(f"{CM}/m", {"orphanDependents": False})
