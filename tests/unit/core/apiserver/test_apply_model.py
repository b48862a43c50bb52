"""Apply against an independent model: ownership as plain sets of paths, values as flat maps from path to value."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver.apply import Applier
from core.apiserver.fieldmerge import all_fields, compare, fields_of, without
from core.apiserver.fieldsets import FieldSet, difference, intersection, paths, union
from core.apiserver.fieldtypes import built_in, custom
from core.apiserver.managedfields import Managers, Who, created, read, take, tracked, write
from core.apiserver.schema import load
from core.errors import Conflict

SCHEMA = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "a": {"type": "integer"},
                "b": {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}}},
                "m": {"type": "object", "additionalProperties": {"type": "integer"}},
                "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}},
                "l": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["k"],
                    "items": {
                        "type": "object",
                        "properties": {"k": {"type": "integer"}, "v": {"type": "integer"}, "w": {"type": "integer"}},
                    },
                },
                "t": {"type": "array", "items": {"type": "integer"}},
            },
        }
    },
}
NODE = custom(SCHEMA, load())
small = st.integers(0, 2)


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


items = st.lists(
    st.fixed_dictionaries({"k": small}, optional={"v": small, "w": small}),
    unique_by=lambda each: each["k"],
    min_size=1,
    max_size=3,
)
specs = optional(
    a=small,
    b=optional(x=small, y=small).filter(bool),
    m=st.dictionaries(st.sampled_from("pqr"), small, min_size=1, max_size=3),
    s=st.lists(small, unique=True, min_size=1, max_size=3),
    l=items,
    t=st.lists(small, min_size=1, max_size=2),
)
steps = st.lists(
    st.tuples(st.sampled_from(["apply", "force", "update"]), st.sampled_from(["one", "two", "three"]), specs),
    min_size=1,
    max_size=6,
)

Flat = dict[tuple[str, ...], Any]


def flatten(spec: dict[str, Any]) -> Flat:
    """Every field that a manager can own, with its value: what this schema means, said without it."""
    flat: Flat = {}
    for name, value in spec.items():
        if name in ("a", "t"):
            flat[(name,)] = value
        elif name in ("b", "m"):
            for key, each in value.items():
                flat[name, key] = each
        elif name == "s":
            for each in value:
                flat[name, f"={each}"] = True
        else:
            for each in value:
                flat[name, f"#{each['k']}"] = True
                for key, inner in each.items():
                    flat[name, f"#{each['k']}", key] = inner
    return flat


class Model:
    """Each manager has a set of paths. Whoever applies owns what it says; what only it had and says no more is gone."""

    def __init__(self) -> None:
        self.values: Flat = {}
        self.owners: dict[tuple[str, str], set[tuple[str, ...]]] = {}

    def apply(self, name: str, config: Flat, force: bool) -> bool:
        me = (name, "Apply")
        before = self.owners.get(me, set())
        after = {**self.values, **config}
        held = {path for who, owned in self.owners.items() if who != me for path in owned} | set(config)
        gone = {path for path in before if path not in held}
        after = {path: value for path, value in after.items() if not any(path[: len(each)] == each for each in gone)}
        changed = {path for path in after if path not in self.values or self.values[path] != after[path]}
        if not force and any(owned & changed for who, owned in self.owners.items() if who != me):
            return False
        for who in list(self.owners):
            if who != me:
                self.owners[who] = {path for path in self.owners[who] if path not in changed and path in after}
        self.owners[me] = set(config)
        self.values = after
        return True

    def update(self, name: str, new: Flat) -> None:
        changed = {path for path in new if path not in self.values or self.values[path] != new[path]}
        for who in list(self.owners):
            self.owners[who] = {path for path in self.owners[who] if path in new and path not in changed}
        self.owners.setdefault((name, "Update"), set()).update(changed)
        self.values = new


def owned_paths(managers: Managers) -> dict[tuple[str, str], set[tuple[str, ...]]]:
    """Ownership in the model's words: without the maps and lists themselves, which the model has no paths for."""
    found = {}
    for who, entry in managers.items():
        mine = set()
        for path in paths(entry.fields):
            said = tuple(_plain(each) for each in path[1:])
            if said and (len(said) > 1 or said[0] in ("a", "t")):
                mine.add(said)
        found[who.name, who.operation] = mine
    return found


def _plain(element: str) -> str:
    if element.startswith("k:"):
        return f"#{json.loads(element[2:])['k']}"
    return f"={element[2:]}" if element.startswith("v:") else element[2:]


def whole(spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "e/v1", "kind": "K", "metadata": {"name": "n"}, "spec": copy.deepcopy(spec)}


@settings(max_examples=300, deadline=None)
@given(first=specs, steps=steps)
def test_applies_and_updates_end_as_in_the_model(
    first: dict[str, Any], steps: list[tuple[str, str, dict[str, Any]]]
) -> None:
    model = Model()
    live = whole(first)
    managers = read(created(NODE, live, Who("zero", "Update", "e/v1"), "e/v1", "t0", has_status=False)) or {}
    model.update("zero", flatten(first))
    for operation, name, spec in steps:
        if operation == "update":
            new = whole(spec)
            changes = compare(live, new, NODE)
            fields = tracked(union(changes.added, changes.modified), "", has_status=False)
            managers = take(managers, Who(name, "Update", "e/v1"), changes, fields, "e/v1", "t")
            live = new
            model.update(name, flatten(spec))
        else:
            applier = Applier(
                NODE,
                whole(spec),
                Who(name, "Apply"),
                "e/v1",
                copy.deepcopy,
                has_status=False,
                force=operation == "force",
            )
            fine = model.apply(name, flatten(spec), operation == "force")
            if fine:
                live, managers = applier.apply(live, managers or {}, "t")
            else:
                with pytest.raises(Conflict):
                    applier.apply(live, managers, "t")
        assert flatten(live.get("spec", {})) == model.values
        ours = {who: owned for who, owned in owned_paths(managers).items() if owned}
        assert ours == {who: owned for who, owned in model.owners.items() if owned}
        assert read(write(managers)) == (managers or None)


trees: st.SearchStrategy[FieldSet] = specs.map(lambda spec: fields_of(whole(spec), NODE))


@given(trees, trees, trees)
def test_sets_keep_the_laws_of_sets(a: FieldSet, b: FieldSet, c: FieldSet) -> None:
    def members(fields: FieldSet) -> set[tuple[str, ...]]:
        return set(paths(fields))

    assert members(union(a, b)) == members(a) | members(b)
    assert members(difference(a, b)) == members(a) - members(b)
    assert members(intersection(a, b)) == members(a) & members(b)
    assert union(union(a, b), c) == union(a, union(b, c))
    assert not difference(a, a)


@given(specs, specs)
def test_a_comparison_says_what_changed(old: dict[str, Any], new: dict[str, Any]) -> None:
    before, after = whole(old), whole(new)
    found = compare(before, after, NODE)
    # The order of sets and of keyed lists is nobody's field.
    assert bool(found.added or found.modified or found.removed) == (flatten(old) != flatten(new))
    assert not compare(after, after, NODE).modified
    swapped = compare(after, before, NODE)
    assert (swapped.added, swapped.removed) == (found.removed, found.added)
    assert compare(before, without(before, fields_of(before, NODE), NODE), NODE).added == {}


@given(specs)
def test_a_new_object_adds_all_that_it_has(spec: dict[str, Any]) -> None:
    document = whole(spec)
    skeleton: dict[str, Any] = {key: {} for key in NODE.embedded}
    assert all_fields(document, NODE) == compare(skeleton, document, NODE).added


containers = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abc")},
        optional={
            "resources": st.sampled_from([{}, {"limits": {"cpu": "1"}}]),
            "ports": st.lists(
                st.fixed_dictionaries({"containerPort": small}, optional={"protocol": st.just("UDP")}), max_size=2
            ),
            "securityContext": st.sampled_from([{}, {"privileged": True}]),
            "env": st.lists(
                st.fixed_dictionaries({"name": st.sampled_from("xy")}, optional={"value": st.just("1")}), max_size=2
            ),
        },
    ),
    unique_by=lambda each: each["name"],
    max_size=2,
)


@given(containers, st.booleans())
def test_a_new_workload_adds_all_that_it_has(found: list[dict[str, Any]], selected: bool) -> None:
    struct = load().of("apps", "v1", "Deployment")
    assert struct is not None
    node = built_in(struct)
    spec: dict[str, Any] = {
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": found}},
        "strategy": {},
    }
    if selected:
        spec["selector"] = {"matchLabels": {"a": "b"}}
    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}
    skeleton: dict[str, Any] = {key: {} for key in node.embedded}
    assert all_fields(document, node) == compare(skeleton, document, node).added
