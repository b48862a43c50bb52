import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver import body
from core.errors import ApiError, BadRequest, TooLarge, UnsupportedMediaType


def yaml(text: str) -> object:
    return body.parse(text.encode(), "application/yaml")[0]


def test_json_is_the_default_and_parameters_of_the_type_are_ignored() -> None:
    for content_type in ("", "application/json", "Application/JSON; charset=utf-8"):
        assert body.parse(b'{"a": [1, 2.5, null]}', content_type) == ({"a": [1, 2.5, None]}, [])


def test_duplicate_keys_are_reported_with_their_path_only_when_asked() -> None:
    text = b'{"spec": {"a": 1, "items": [{"b": 1, "b": 2, "b": 3}], "a": 2}, "spec2": {"a": 1}}'
    document, messages = body.parse(text, "application/json", strict=True)
    assert messages == ['duplicate field "spec.a"', 'duplicate field "spec.items[0].b"']
    assert document["spec"] == {"a": 2, "items": [{"b": 3}]}
    assert body.parse(text, "application/json")[1] == []


@pytest.mark.parametrize("content_type", ["application/json", "application/yaml"])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_nesting_is_bounded(content_type: str, opening: bytes) -> None:
    closing = b"]" if opening == b"[" else b"}"
    fine, too_deep = body.MAX_DEPTH - 1, body.MAX_DEPTH + 1
    body.parse(opening * fine + b"1" + closing * fine, content_type)
    for depth in (too_deep, 100_000):
        with pytest.raises(BadRequest):
            body.parse(opening * depth + b"1" + closing * depth, content_type)


@pytest.mark.parametrize("text", [b"", b"{", b"nul", b'{"a": NaN}', b"\xff", b'{"a" 1}', b'"\\ud800"', b"{} {}"])
def test_bad_json_is_a_bad_request(text: bytes) -> None:
    with pytest.raises(BadRequest):
        body.parse(text, "application/json")


def test_unknown_content_types_name_the_known_ones() -> None:
    with pytest.raises(
        UnsupportedMediaType, match="application/json, application/yaml, application/vnd.kubernetes.protobuf"
    ):
        body.parse(b"{}", "text/html")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2020-01-01", "2020-01-01"), ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"), ("22:30", "22:30"), ("1e3", 1000.0),
        ("0644", 420), ("0o17", 15), ("0x1F", 31), ("-12", -12), ("1.5", 1.5), (".5", 0.5), ("1_000", 1000), ("yes", True), ("Off", False),
        ("y", "y"), ("~", None), ("null", None), ("", None), ("'1'", "1"), ('"yes"', "yes"), ("1.2.3", "1.2.3"), ("-", [None]), ("<<", "<<"),
        ("089", 89.0), ("!!str 12", "12"), ("!!float 3", 3.0), ("!!binary aGk=", "hi"), ("18446744073709551616", 18446744073709551616.0),
        (".inf", ".inf"), ("!!python/object/apply:os.system ['true']", ["true"]),
    ],
)  # fmt: skip
def test_yaml_scalars_are_those_of_kubernetes(text: str, value: object) -> None:
    found = yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_yaml_keys_become_text_and_anchors_and_merges_expand() -> None:
    text = "base: &b {x: 1, y: 2}\nuse: {<<: *b, y: 3}\nmany: {<<: [*b, {z: 4, x: 9}]}\n1: a\ntrue: b\n~: c\nsame: *b\n"
    found = yaml(text)
    assert found == {
        "base": {"x": 1, "y": 2}, "use": {"x": 1, "y": 3}, "many": {"x": 1, "y": 2, "z": 4}, "1": "a", "true": "b", "null": "c",
        "same": {"x": 1, "y": 2},
    }  # fmt: skip
    assert found["same"] is not found["base"]


def test_yaml_reports_keys_that_are_set_twice() -> None:
    assert body.parse(b"a: 1\na: 2\n", "application/yaml", strict=True) == (
        {"a": 2},
        ['line 2: key "a" already set in map'],
    )


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n---\nb: 2\n", "a: [1", "*x", "a: &x [*x]", "? [a]\n: 1", "!!int x", "\t- a", "<<: 1",
        "\x00", "a: !!binary '*'",
    ],
)  # fmt: skip
def test_bad_yaml_is_a_bad_request(text: str) -> None:
    with pytest.raises(BadRequest):
        yaml(text)


def test_aliases_that_explode_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(BadRequest, match="excessive aliasing"):
        yaml("\n".join(lines))


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200) | st.text(alphabet="{}[]:,-&*!<>?|'\"#%@ab1\n\t ~", max_size=60).map(str.encode),
    st.sampled_from(["application/json", "application/yaml", "application/vnd.kubernetes.protobuf", ""]),
)
def test_garbage_gives_a_document_or_an_api_error(text: bytes, content_type: str) -> None:
    with contextlib.suppress(ApiError):
        body.parse(text, content_type, strict=True)


@pytest.mark.parametrize("content_type", [body.JSON, "application/apply-patch+yaml"])
def test_more_values_than_anything_has_are_refused_before_they_are_decoded(content_type, monkeypatch):
    def decoded(data):
        raise AssertionError("decoded")

    monkeypatch.setattr(body, "_json", decoded)
    for text in (
        b"[" + b"[]," * 100_001 + b"[]]",
        b'{"a":[' + b"1," * 100_001 + b"1]}",
        b"{" + b'"a":{},' * 100_001 + b'"b":1}',
    ):
        if content_type == body.JSON or text[:1] == b"{":
            with pytest.raises(TooLarge, match="limit is 100000 values"):
                body.parse(text, content_type)


def test_text_is_no_number_of_values():
    text = json.dumps({"data": {"table": 'a,[b{"\\,' * 60_000}}).encode()
    assert len(body.parse(text, body.JSON)[0]["data"]["table"]) == 8 * 60_000


def test_long_yaml_is_refused_and_long_json_in_its_place_is_read():
    rows = [{"name": str(each)} for each in range(30_000)]
    with pytest.raises(BadRequest, match="which only JSON may have"):
        body.parse("".join(f"- name: {each['name']}\n" for each in rows).encode(), body.YAML)
    document = {"rows": rows}
    assert body.parse(json.dumps(document).encode(), "application/apply-patch+yaml", strict=True) == (document, [])
    assert body.parse(b'{"a": 1, "a": 2}', body.YAML, strict=True) == ({"a": 2}, ['line 1: key "a" already set in map'])
    assert body.parse(b"{a: 1}", body.YAML)[0] == {"a": 1}


def test_protobuf_has_a_number_of_fields():
    def field(number: int, data: bytes) -> bytes:
        size, text = len(data), b""
        while size > 127:
            text, size = text + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + text + bytes([size]) + data

    def config_map(entries: int) -> bytes:
        data = b"".join(field(2, field(1, b"%x" % each) + field(2, b"v")) for each in range(entries))
        return b"k8s\0" + field(1, field(1, b"v1") + field(2, b"ConfigMap")) + field(2, field(1, field(1, b"a")) + data)

    assert len(body.parse(config_map(8_000), body.PROTOBUF)[0]["data"]) == 8_000
    for _ in range(2):
        with pytest.raises(TooLarge, match="limit is 50000 fields"):
            body.parse(config_map(20_000), body.PROTOBUF)
    assert body.parse(config_map(1), body.PROTOBUF)[0]["data"] == {"0": "v"}
