import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.api.kinds import CUSTOM_RESOURCE_DEFINITION
from core.apiserver import schema
from core.apiserver.crd import CustomSchema, validate_crd
from core.errors import BadRequest, Invalid


def of(spec: dict[str, Any], **more: Any) -> CustomSchema:
    return CustomSchema({"type": "object", "properties": {"spec": {"type": "object", **spec}}, **more})


def function(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "faaslite.dev/v1", "kind": "Function", "metadata": {"name": "x"}, "spec": spec}


def stored(properties: dict[str, Any], **spec: Any) -> Any:
    return of({"properties": properties}).prune_default_validate(function(**spec))[0]["spec"]


def wrong(properties: dict[str, Any], **spec: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        stored(properties, **spec)
    return caught.value


def test_unknown_fields_are_pruned_and_named() -> None:
    schema = of(
        {
            "properties": {
                "a": {"type": "string"},
                "l": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "integer"}}}},
            }
        }
    )
    document = {**function(a="x", b=1, l=[{"b": 1}, {"b": 2, "c": 3}]), "other": 1}
    document["metadata"] |= {"labels": {"any": "thing"}, "nme": 1}
    before = copy.deepcopy(document)
    found, messages = schema.prune_default_validate(document)
    assert found == {**function(a="x", l=[{"b": 1}, {"b": 2}]), "metadata": {"name": "x", "labels": {"any": "thing"}}}
    assert sorted(messages) == [
        'unknown field "metadata.nme"', 'unknown field "other"', 'unknown field "spec.b"', 'unknown field "spec.l[1].c"',
    ]  # fmt: skip
    assert document == before


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"a": {"b": None}}, {"a": {"b": None}}),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"p": {"type": "object"}}}, {"a": 1, "p": {"b": 1}}, {"a": 1, "p": {}}),
        ({"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "string"}}}}, {"k": {"a": "x", "b": 1}}, {"k": {"a": "x"}}),
        ({"type": "object", "additionalProperties": True}, {"k": {"b": 1}}, {"k": {"b": 1}}),
        ({"x-kubernetes-int-or-string": True}, 5, 5),
        ({"x-kubernetes-int-or-string": True}, "50%", "50%"),
        ({"type": "string", "nullable": True}, None, None),
        ({"type": "number"}, 3, 3),
        ({"type": "integer"}, 3.0, 3.0),
        ({"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}},
         {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "odd": 1}, "spec": {"x": 1}, "y": 1},
         {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}}),
    ],
)  # fmt: skip
def test_what_is_kept(schema: dict[str, Any], value: Any, expected: Any) -> None:
    assert stored({"f": schema}, f=value) == {"f": expected}


def test_nulls_that_are_not_allowed_are_dropped_and_defaulted() -> None:
    assert stored({"a": {"type": "string"}, "b": {"type": "string", "default": "x"}}, a=None, b=None) == {"b": "x"}
    assert stored({"b": {"type": "string", "default": "x", "nullable": True}}, b=None) == {"b": None}


def test_defaults_reach_into_defaults_and_items_and_are_copies() -> None:
    properties = {
        "o": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 3}, "l": {"type": "array", "items": {"type": "string"}, "default": []}}},
        "items": {"type": "array", "items": {"type": "object", "properties": {"p": {"type": "string", "default": "TCP"}}}},
    }  # fmt: skip
    schema = of({"properties": properties})
    first = schema.prune_default_validate(function(items=[{}, {"p": "UDP"}]))[0]
    assert first["spec"] == {"o": {"n": 3, "l": []}, "items": [{"p": "TCP"}, {"p": "UDP"}]}
    first["spec"]["o"]["l"].append("x")
    assert schema.prune_default_validate(function())[0]["spec"]["o"] == {"n": 3, "l": []}


@pytest.mark.parametrize(
    ("schema", "value", "reason", "message"),
    [
        ({"type": "string", "enum": ["a", "b"]}, "x", "NotSupported", 'Unsupported value: "x": supported values: "a", "b"'),
        ({"type": "integer"}, "x", "TypeInvalid", 'Invalid value: "string": spec.f in body must be of type integer: "string"'),
        ({"type": "integer"}, True, "TypeInvalid", 'Invalid value: "boolean": spec.f in body must be of type integer: "boolean"'),
        ({"type": "integer"}, 1.5, "TypeInvalid", 'Invalid value: "number": spec.f in body must be of type integer: "number"'),
        ({"x-kubernetes-int-or-string": True}, 1.5, "TypeInvalid", 'Invalid value: "number": spec.f in body must be of type integer,string: "number"'),
        ({"type": "array", "items": {"type": "string"}}, {}, "TypeInvalid", 'Invalid value: "object": spec.f in body must be of type array: "object"'),
        ({"type": "string", "pattern": "^a+$"}, "b", "Invalid", "Invalid value: \"b\": spec.f in body should match '^a+$'"),
        ({"type": "string", "pattern": "^a$"}, "a\n", "Invalid", "Invalid value: \"a\\n\": spec.f in body should match '^a$'"),
        ({"type": "integer", "minimum": 1}, 0, "Invalid", "Invalid value: 0: spec.f in body should be greater than or equal to 1"),
        ({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, 1, "Invalid", "Invalid value: 1: spec.f in body should be greater than 1"),
        ({"type": "number", "maximum": 1}, 1.5, "Invalid", "Invalid value: 1.5: spec.f in body should be less than or equal to 1"),
        ({"type": "number", "maximum": 1, "exclusiveMaximum": True}, 1, "Invalid", "Invalid value: 1: spec.f in body should be less than 1"),
        ({"type": "integer", "multipleOf": 5}, 7, "Invalid", "Invalid value: 7: spec.f in body should be a multiple of 5"),
        ({"type": "string", "minLength": 2}, "x", "Invalid", 'Invalid value: "x": spec.f in body should be at least 2 chars long'),
        ({"type": "string", "maxLength": 2}, "xyz", "TooLong", "Too long: may not be more than 2 bytes"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, [], "Invalid", "Invalid value: 0: spec.f in body should have at least 1 items"),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, ["a", "b"], "TooMany", "Too many: 2: must have at most 1 items"),
        ({"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": 0}, {"a": "b"}, "TooMany", "Too many: 1: must have at most 0 items"),
        ({"type": "string", "format": "date-time"}, "soon", "Invalid", 'Invalid value: "soon": spec.f in body must be of type date-time: "soon"'),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True, "not": {"enum": [5]}}, 5, "Invalid",
         'Invalid value: 5: "spec.f" must not validate the schema (not)'),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, "Invalid",
         'Invalid value: "": "spec.f" must validate one and only one schema (oneOf). Found none valid'),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": 1, "b": 2}, "Invalid",
         'Invalid value: "": "spec.f" must validate one and only one schema (oneOf). Found 2 valid alternatives'),
        ({"type": "string", "anyOf": [{"maxLength": 1}, {"minLength": 3}]}, "xx", "Invalid", 'Invalid value: "xx": "spec.f" must validate at least one schema (anyOf)'),
        ({"type": "integer", "allOf": [{"minimum": 3}, {"maximum": 5}]}, 6, "Invalid", 'Invalid value: 6: "spec.f" must validate all the schemas (allOf)'),
    ],
)  # fmt: skip
def test_what_is_refused(schema: dict[str, Any], value: Any, reason: str, message: str) -> None:
    error = wrong({"f": schema}, f=value)
    assert error.causes == [{"reason": f"FieldValue{reason}", "message": message, "field": "spec.f"}]
    assert error.message == f'Function.faaslite.dev "x" is invalid: spec.f: {message}'
    assert error.details["kind"] == "Function"


def test_all_that_is_wrong_is_said_with_its_path() -> None:
    properties = {
        "l": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["a", "b"],
                "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            },
        },
        "m": {"type": "object", "additionalProperties": {"type": "integer"}},
    }
    error = wrong(properties, l=[{"a": "x", "b": "y"}, {"a": 1}], m={"k": "v"})
    assert [(each["reason"], each["field"]) for each in error.causes] == [
        ("FieldValueRequired", "spec.l[1].b"), ("FieldValueTypeInvalid", "spec.l[1].a"), ("FieldValueTypeInvalid", "spec.m[k]"),
    ]  # fmt: skip
    assert 'is invalid: [spec.l[1].b: Required value, spec.l[1].a: Invalid value: "integer"' in error.message


def test_lists_with_keys_and_sets_have_no_duplicates() -> None:
    items = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "p": {"type": "string", "default": "TCP"}},
    }
    keyed = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name", "p"],
        "items": items,
    }
    assert len(stored({"l": keyed}, l=[{"name": "a"}, {"name": "a", "p": "UDP"}])["l"]) == 2
    error = wrong({"l": keyed}, l=[{"name": "a"}, {"name": "a", "p": "TCP"}])
    assert error.causes[0]["message"] == 'Duplicate value: {"name":"a","p":"TCP"}'
    names = {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}
    assert wrong({"l": names}, l=["a", "b", "a"]).causes == [
        {"reason": "FieldValueDuplicate", "message": 'Duplicate value: "a"', "field": "spec.l[2]"}
    ]


def test_embedded_resources_name_their_kind() -> None:
    error = wrong(
        {"f": {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}},
        f={"kind": "Pod"},
    )
    assert [each["field"] for each in error.causes] == ["spec.f.apiVersion"]


def test_logic_looks_into_objects() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string"}},
        "anyOf": [{"properties": {"a": {"enum": ["x"]}}}, {"required": ["b"]}],
    }
    assert stored({"f": schema}, f={"a": "x"}) == {"f": {"a": "x"}}
    assert wrong({"f": schema}, f={"a": "y"}).causes[0]["field"] == "spec.f"


FORMATS = {
    "date-time": ("2024-01-01T00:00:00Z", "2024-01-01"), "date": ("2024-01-01", "2024-1-1x"), "ipv4": ("1.2.3.4", "1.2.3"), "ipv6": ("::1", "1.2.3.4"),
    "cidr": ("10.0.0.0/8", "10.0.0.0"), "mac": ("00:11:22:33:44:55", "00:11"), "email": ("a@b.c", "a"), "hostname": ("a.b", "-a"), "uri": ("http://x", "x"),
    "uuid": ("123e4567-e89b-12d3-a456-426614174000", "1"), "byte": ("aGk=", "a"), "duration": ("1h30m", "soon"), "unheard-of": ("anything", None),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name: str) -> None:
    good, bad = FORMATS[name]
    schema = {"f": {"type": "string", "format": name}}
    assert stored(schema, f=good) == {"f": good}
    if bad is not None:
        assert wrong(schema, f=bad).causes[0]["reason"] == "FieldValueInvalid"
    assert wrong({"f": {"type": "integer", "format": "int32"}}, f=2**31).causes


def test_malformed_metadata_is_a_bad_request() -> None:
    for metadata in ("x", [], {"labels": {"a": 1}}, {"name": 5}):
        with pytest.raises(BadRequest):
            of({}).prune_default_validate({**function(), "metadata": metadata})
    with pytest.raises(BadRequest):
        of({}).prune_default_validate([])  # type: ignore[arg-type]


def test_no_schema_allows_anything() -> None:
    document = {**function(a=[{"b": None}]), "more": 1}
    assert CustomSchema(None).prune_default_validate(document) == (document, [])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "l", "m", "spec"]), inner, max_size=3)
    ),
    max_leaves=10,
)
RICH = of({"required": ["a"], "properties": {
    "a": {"type": "string", "pattern": "a", "maxLength": 2, "default": "a"}, "b": {"x-kubernetes-int-or-string": True, "nullable": True},
    "l": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer", "minimum": 0}, "maxItems": 2},
    "m": {"type": "object", "additionalProperties": {"type": "object", "properties": {"a": {"type": "boolean", "default": False}}}},
}})  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["spec", "status"]), JSON))
def test_any_document_is_shaped_once_or_refused(document: dict[str, Any]) -> None:
    try:
        found, _ = RICH.prune_default_validate({**document, "metadata": {"name": "x"}})
    except (Invalid, BadRequest):
        return
    assert RICH.prune_default_validate(found) == (found, [])


# Definitions


def definition(**changes: Any) -> dict[str, Any]:
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    spec = {
        "group": "faaslite.dev",
        "scope": "Namespaced",
        "names": {"plural": "functions", "kind": "Function"},
        "versions": [version],
    }
    return {"metadata": {"name": "functions.faaslite.dev"}, "spec": {**spec, **changes}}


def with_schema(**spec: Any) -> dict[str, Any]:
    root = {"type": "object", "properties": {"f": spec}}
    return definition(versions=[{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": root}}])


def with_version(**changes: Any) -> dict[str, Any]:
    found = definition()
    found["spec"]["versions"][0].update(changes)
    return found


F = "spec.versions[0].schema.openAPIV3Schema.properties[f]"


@pytest.mark.parametrize(
    "document",
    [
        definition(), with_schema(type="string", pattern="^a$", default="a"), with_schema(**{"x-kubernetes-int-or-string": True}),
        with_schema(**{"x-kubernetes-preserve-unknown-fields": True}), with_schema(type="array", items={"type": "object"}),
        with_schema(type="object", oneOf=[{"required": ["a"]}], properties={"a": {"type": "string"}}),
        with_version(subresources={"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}),
        with_version(additionalPrinterColumns=[{"name": "A", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]),
    ],
)  # fmt: skip
def test_good_definitions(document: dict[str, Any]) -> None:
    assert validate_crd(document) == []


@pytest.mark.parametrize(
    ("document", "field", "words"),
    [
        (definition(group=""), "spec.group", "Required value"),
        (definition(group="nodots"), "spec.group", "domain"),
        (definition(group="other.dev"), "metadata.name", 'must be spec.names.plural+"."+spec.group'),
        (definition(names={"plural": "functions"}), "spec.names.kind", "Required value"),
        (definition(names={"plural": "functions", "kind": "Function", "shortNames": ["F!"]}), "spec.names.shortNames[0]", "DNS-1035"),
        (definition(names={"plural": "functions", "kind": "F", "listKind": "F"}), "spec.names.listKind", "may not be the same"),
        (definition(scope="Galaxy"), "spec.scope", 'Unsupported value: "Galaxy": supported values: "Cluster", "Namespaced"'),
        (definition(scope=None), "spec.scope", "Required value"),
        (definition(versions=[]), "spec.versions", "Required value"),
        (with_version(storage=False), "spec.versions", "must have exactly one version marked as storage version"),
        (with_version(name="V1"), "spec.versions[0].name", "DNS-1035"),
        (with_version(schema=None), "spec.versions[0].schema.openAPIV3Schema", "schemas are required"),
        (with_version(schema={"openAPIV3Schema": {"type": "string"}}), "spec.versions[0].schema.openAPIV3Schema.type", "must be object at the root"),
        (with_version(subresources={"scale": {"specReplicasPath": ".x"}}), "spec.versions[0].subresources.scale.specReplicasPath", "under .spec"),
        (with_version(additionalPrinterColumns=[{"name": "A", "type": "text", "jsonPath": ".a"}]), "spec.versions[0].additionalPrinterColumns[0].type", "Unsupported"),
        (with_version(additionalPrinterColumns=[{"name": "A", "type": "string", "jsonPath": "a["}]), "spec.versions[0].additionalPrinterColumns[0].jsonPath", "JSONPath"),
        (definition(conversion={"strategy": "Webhook"}), "spec.conversion.strategy", "conversion webhooks are not supported by this server"),
        (definition(preserveUnknownFields=True), "spec.preserveUnknownFields", "must be false"),
        (with_schema(), f"{F}.type", "must not be empty for specified object fields"),
        (with_schema(type="text"), f"{F}.type", "Unsupported value"),
        (with_schema(type="array"), f"{F}.items", "must be specified"),
        (with_schema(type="array", items=[{"type": "string"}]), f"{F}.items", "not an array"),
        (with_schema(type="object", properties={"a": {"type": "string"}}, additionalProperties=True), f"{F}.additionalProperties", "mutual exclusive"),
        (with_schema(type="array", items={"type": "string"}, uniqueItems=True), f"{F}.uniqueItems", "quadratic"),
        (with_schema(type="string", pattern="("), f"{F}.pattern", "must be a valid regular expression"),
        (with_schema(type="string", **{"$ref": "#/x"}), f"{F}.$ref", "not supported"),
        (with_schema(type="object", anyOf=[{"type": "object"}]), f"{F}.anyOf[0].type", "must be empty to be structural"),
        (with_schema(type="string", default=5), f"{F}.default", "must be of type string"),
        (with_schema(type="object", default={"x": 1}), f"{F}.default", 'unknown field "x"'),
        (with_schema(type="object", **{"x-kubernetes-validations": [{"rule": "true"}]}), f"{F}.x-kubernetes-validations", "CEL validation rules are not supported by this server"),
        (with_schema(type="array", items={"type": "object"}, **{"x-kubernetes-list-type": "map"}), f"{F}.x-kubernetes-list-map-keys", "must not be empty"),
        (with_schema(type="array", items={"type": "object"}, **{"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["a"]}),
         f"{F}.x-kubernetes-list-map-keys[0]", "names of item properties"),
    ],
)  # fmt: skip
def test_bad_definitions(document: dict[str, Any], field: str, words: str) -> None:
    causes = validate_crd(document)
    assert any(each["field"] == field and words in each["message"] for each in causes), causes


def test_versions_are_distinct_and_one_is_stored() -> None:
    version = definition()["spec"]["versions"][0]
    fields = [each["field"] for each in validate_crd(definition(versions=[version, version]))]
    assert fields == ["spec.versions[1].name", "spec.versions"]


# Any definition that passes can be used, and none makes the server fail

KEYWORDS = st.sampled_from(
    ["type", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "minLength", "maxItems", "required", "format", "default",
     "nullable", "items", "additionalProperties", "properties", "allOf", "anyOf", "oneOf", "not", "x-kubernetes-int-or-string", "uniqueItems",
     "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "$ref"]
)  # fmt: skip
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean"])
SCHEMAS = st.recursive(
    TYPES.map(lambda name: {"type": name}) | st.fixed_dictionaries({"type": TYPES, "default": JSON}),
    lambda inner: st.dictionaries(
        KEYWORDS,
        inner | JSON | st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner) | TYPES | st.just(True) | st.just(["a"]) | st.just(""),
        max_size=3,
    )
    | st.dictionaries(st.sampled_from("ab"), inner, max_size=2).map(lambda below: {"type": "object", "properties": below})
    | inner.map(lambda below: {"type": "array", "items": below}),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(SCHEMAS, JSON)
def test_definitions_are_refused_or_work(raw: dict[str, Any], value: Any) -> None:
    try:
        document, _ = schema.load().validate(CUSTOM_RESOURCE_DEFINITION, with_schema(**raw), strict=False)
    except BadRequest:
        return
    if validate_crd(document):
        return
    compiled = CustomSchema(document["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    with contextlib.suppress(Invalid, BadRequest):
        found, _ = compiled.prune_default_validate({"metadata": {"name": "x"}, "f": value})
        assert compiled.prune_default_validate(found) == (found, [])
