import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.api.kinds import POD, SERVICE, Kind
from core.apiserver import schema
from core.apiserver.patch_strategic import strategic_merge
from core.errors import BadRequest

DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")


def patched(document: dict[str, Any], patch: dict[str, Any], kind: Kind = POD) -> dict[str, Any]:
    struct = schema.load().struct(kind)
    assert struct is not None
    before = copy.deepcopy((document, patch))
    found = strategic_merge(document, patch, struct)
    assert (document, patch) == before
    return found


def containers(*names: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"name": name, **fields} for name in names]


def spec(**fields: Any) -> dict[str, Any]:
    return {"spec": fields}


@pytest.mark.parametrize(
    ("document", "patch", "expected"),
    [
        # Objects merge, nulls delete.
        ({"metadata": {"labels": {"a": "1", "b": "2"}}}, {"metadata": {"labels": {"a": None, "c": "3"}}},
         {"metadata": {"labels": {"b": "2", "c": "3"}}}),
        (spec(a={"x": 1}), spec(a=None, b={"y": None, "z": 1}), spec(b={"z": 1})),
        # Lists merge by their key; new items go before those that the patch doesn't name.
        (spec(containers=containers("a", "b", image="1")), spec(containers=[{"name": "b", "image": "2"}]),
         spec(containers=[{"name": "a", "image": "1"}, {"name": "b", "image": "2"}])),
        (spec(containers=containers("a", "b")), spec(containers=containers("c")), spec(containers=containers("c", "a", "b"))),
        (spec(containers=[{"name": "a", "env": [{"name": "X", "value": "1"}]}]),
         spec(containers=[{"name": "a", "env": [{"name": "Y", "value": "2"}]}]),
         spec(containers=[{"name": "a", "env": [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]}])),
        # The order that is asked for.
        (spec(containers=containers("a", "b")),
         {"spec": {"containers": containers("c"), "$setElementOrder/containers": containers("a", "b", "c")}},
         spec(containers=containers("a", "b", "c"))),
        (spec(containers=containers("a", "b", "c")), {"spec": {"$setElementOrder/containers": containers("c", "a")}},
         spec(containers=containers("b", "c", "a"))),
        # Directives in items.
        (spec(containers=containers("a", "b")), spec(containers=[{"name": "a", "$patch": "delete"}]), spec(containers=containers("b"))),
        (spec(containers=containers("a", "b")), spec(containers=[{"name": "z"}, {"$patch": "replace"}]), spec(containers=containers("z"))),
        (spec(containers=[{"name": "a", "image": "x", "tty": True}]), spec(containers=[{"name": "a", "image": "y", "$patch": "merge"}]),
         spec(containers=[{"name": "a", "image": "y", "tty": True}])),
        # Directives in objects.
        (spec(securityContext={"runAsUser": 1}), spec(securityContext={"$patch": "replace", "fsGroup": 2}), spec(securityContext={"fsGroup": 2})),
        (spec(securityContext={"runAsUser": 1}), spec(securityContext={"$patch": "delete"}), spec(securityContext={})),
        (spec(securityContext={"runAsUser": 1}), spec(securityContext={"$patch": "merge", "fsGroup": 2}),
         spec(securityContext={"runAsUser": 1, "fsGroup": 2})),
        # $retainKeys: a volume changes its source.
        (spec(volumes=[{"name": "v", "emptyDir": {}}]),
         spec(volumes=[{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]),
         spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}])),
        # Primitives.
        ({"metadata": {"finalizers": ["a", "b"]}}, {"metadata": {"finalizers": ["c", "a"]}}, {"metadata": {"finalizers": ["c", "a", "b"]}}),
        ({"metadata": {"finalizers": ["a", "b", "c"]}}, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"]}},
         {"metadata": {"finalizers": ["a", "c"]}}),
        ({"metadata": {"finalizers": ["a", "b"]}},
         {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"], "$setElementOrder/finalizers": ["b", "c"]}},
         {"metadata": {"finalizers": ["b", "c"]}}),
        # Atomic lists, and lists without a schema, are replaced.
        (spec(tolerations=[{"key": "a"}]), spec(tolerations=[{"key": "b"}]), spec(tolerations=[{"key": "b"}])),
        (spec(containers=[{"name": "a", "args": ["x"]}]), spec(containers=[{"name": "a", "args": ["y"]}]),
         spec(containers=[{"name": "a", "args": ["y"]}])),
        (spec(unknown=[1]), spec(unknown=[2]), spec(unknown=[2])),
        # What is new comes without directives and nulls.
        ({}, spec(containers=[{"name": "a", "image": None, "$setElementOrder/env": []}, {"name": "b", "$patch": "delete"}]),
         spec(containers=containers("a"))),
        # Another type replaces.
        (spec(hostname={"odd": 1}), spec(hostname="x"), spec(hostname="x")),
    ],
)  # fmt: skip
def test_pods(document: dict[str, Any], patch: dict[str, Any], expected: dict[str, Any]) -> None:
    assert patched(document, patch) == expected


def test_service_ports_merge_by_port_alone() -> None:
    service = spec(ports=[{"port": 53, "protocol": "UDP"}])
    assert patched(service, spec(ports=[{"port": 53, "protocol": "TCP"}]), SERVICE) == spec(
        ports=[{"port": 53, "protocol": "TCP"}]
    )


def test_ports_of_one_number_stay_apart_where_the_server_has_several() -> None:
    both = [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]
    found = patched(spec(ports=both), spec(ports=[{"port": 53, "name": "dns"}]), SERVICE)
    assert found == spec(ports=[{"port": 53, "protocol": "TCP", "name": "dns"}, {"port": 53, "protocol": "UDP"}])
    assert patched(spec(ports=both), spec(ports=[{"port": 53, "$patch": "delete"}]), SERVICE) == spec(ports=[])


def test_deployments_reach_their_template() -> None:
    document = {
        "spec": {"template": {"spec": {"containers": [{"name": "a", "image": "1", "ports": [{"containerPort": 80}]}]}}}
    }
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "2"}]}}}}
    found = patched(document, patch, DEPLOYMENT)
    assert found["spec"]["template"]["spec"]["containers"] == [
        {"name": "a", "image": "2", "ports": [{"containerPort": 80}]}
    ]


def test_strategy_of_a_deployment_retains_keys() -> None:
    document = spec(strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}})
    patch = spec(strategy={"$retainKeys": ["type"], "type": "Recreate"})
    assert patched(document, patch, DEPLOYMENT) == spec(strategy={"type": "Recreate"})


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (spec(containers=[{"image": "x"}]), "does not contain declared merge key: name"),
        (spec(containers=["x"]), "different types"),
        ({"$patch": "jump"}, "Unknown patch type found: jump"),
        (spec(containers=[{"name": "a", "$patch": "jump"}]), "Unknown patch type found: jump"),
        (spec(**{"$retainKeys": ["a"], "b": 1}), "doesn't contain b"),
        (spec(**{"$retainKeys": "a"}), "must be a list"),
        (spec(**{"$setElementOrder/containers": 1}), "must be a list"),
        (spec(**{"$deleteFromPrimitiveList/x": {}}), "must be a list"),
        (
            {"spec": {"containers": containers("c"), "$setElementOrder/containers": containers("a")}},
            "doesn't contain 'c'",
        ),
    ],
)
def test_malformed_patches_are_bad_requests(patch: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words.replace("$", r"\$")):
        patched(spec(containers=containers("a")), patch)


# Properties

NAMES = st.sampled_from("abcde")
ITEM = st.fixed_dictionaries({"name": NAMES}, optional={"image": st.sampled_from("xyz"), "tty": st.booleans()})
ITEMS = st.lists(ITEM, max_size=5, unique_by=lambda each: each["name"])
PATCH_ITEM = st.fixed_dictionaries(
    {"name": NAMES},
    optional={"image": st.none() | st.sampled_from("xyz"), "tty": st.booleans(), "$patch": st.just("delete")},
)
PATCH_ITEMS = st.lists(PATCH_ITEM, min_size=1, max_size=5, unique_by=lambda each: each["name"])


@settings(max_examples=300, deadline=None)
@given(ITEMS, PATCH_ITEMS, st.randoms())
def test_lists_of_objects_against_a_dictionary(items: list[Any], changes: list[Any], random: Any) -> None:
    wanted = {each["name"]: dict(each) for each in items}
    for each in changes:
        if "$patch" in each:
            wanted.pop(each["name"], None)
        else:
            both = {**wanted.get(each["name"], {}), **each}
            wanted[each["name"]] = {key: value for key, value in both.items() if value is not None}
    order = list(wanted)
    random.shuffle(order)
    plain = patched(spec(containers=items), spec(containers=changes))["spec"]["containers"]
    assert {each["name"]: each for each in plain} == wanted
    assert len(plain) == len(wanted)
    untouched = [each["name"] for each in items if each["name"] not in {change["name"] for change in changes}]
    assert [each["name"] for each in plain if each["name"] in untouched] == untouched

    ordered = spec(containers=changes, **{"$setElementOrder/containers": [{"name": name} for name in order]})
    arranged = patched(spec(containers=items), ordered)["spec"]["containers"]
    assert [each["name"] for each in arranged] == order
    assert {each["name"]: each for each in arranged} == wanted


@settings(max_examples=200, deadline=None)
@given(st.lists(NAMES, unique=True), st.lists(NAMES, unique=True, min_size=1), st.lists(NAMES, unique=True))
def test_lists_of_primitives_against_sets(old: list[str], new: list[str], gone: list[str]) -> None:
    patch = {"metadata": {"finalizers": new, "$deleteFromPrimitiveList/finalizers": gone}}
    found = patched({"metadata": {"finalizers": old}}, patch)["metadata"]["finalizers"]
    assert set(found) == (set(old) | set(new)) - set(gone)
    assert len(found) == len(set(found))


@settings(max_examples=100, deadline=None)
@given(ITEMS)
def test_an_empty_patch_changes_nothing(items: list[Any]) -> None:
    assert patched(spec(containers=items), {}) == spec(containers=items)
    assert patched(spec(containers=items), spec(containers=[])) == spec(containers=items)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | NAMES,
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["name", "spec", "containers", "env", "$patch", "$retainKeys", "$setElementOrder/containers",
                         "$deleteFromPrimitiveList/containers", "metadata", "finalizers", "$setElementOrder/finalizers"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["spec", "metadata"]), JUNK),
    st.dictionaries(st.sampled_from(["spec", "metadata", "$patch"]), JUNK),
)
def test_junk_gives_a_document_or_a_bad_request(document: dict[str, Any], patch: dict[str, Any]) -> None:
    with contextlib.suppress(BadRequest):
        assert type(patched(document, patch)) is dict
