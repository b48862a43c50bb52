"""Selectors: written and read again they mean the same; they match as a plain reading of the rules says."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api.selectors import from_label_selector, parse_fields, parse_labels

KEYS = ("app", "tier", "example.dev/part", "a.b_c-d")
VALUES = ("", "x", "y", "web-1", "A.b_c", "7", "12")
values = st.sampled_from(VALUES)
some = st.lists(values, min_size=1, max_size=3, unique=True)
requirements = st.one_of(
    st.tuples(st.sampled_from(KEYS), st.sampled_from(("=", "!=")), values.map(lambda each: [each])),
    st.tuples(st.sampled_from(KEYS), st.sampled_from(("in", "notin")), some),
    st.tuples(st.sampled_from(KEYS), st.sampled_from(("exists", "!exists")), st.just([])),
    st.tuples(
        st.sampled_from(KEYS), st.sampled_from((">", "<")), st.sampled_from(("5", "7", "10")).map(lambda each: [each])
    ),
)
Requirement = tuple[str, str, list[str]]
labelled = st.dictionaries(st.sampled_from(KEYS), values)
blank = st.sampled_from(("", " ", "  "))


def text_of(requirement: Requirement, gap: str) -> str:
    key, operator, wanted = requirement
    match operator:
        case "in" | "notin":
            return f"{gap}{key} {operator} ({gap}{(gap + ',' + gap).join(wanted)}{gap}){gap}"
        case "exists":
            return f"{gap}{key}{gap}"
        case "!exists":
            return f"{gap}!{key}{gap}"
        case _:
            return f"{gap}{key}{gap}{operator}{gap}{wanted[0]}{gap}"


def holds(requirement: Requirement, labels: dict[str, str]) -> bool:
    key, operator, wanted = requirement
    value = labels.get(key)
    return {
        "=": value == wanted[0] if wanted else False,
        "!=": value is None or value != wanted[0] if wanted else False,
        "in": value in wanted,
        "notin": value is None or value not in wanted,
        "exists": value is not None,
        "!exists": value is None,
        ">": value is not None and value.isdigit() and int(value) > int(wanted[0]) if operator in "<>" else False,
        "<": value is not None and value.isdigit() and int(value) < int(wanted[0]) if operator in "<>" else False,
    }[operator]


@given(st.lists(requirements, max_size=4), labelled, blank)
def test_the_query_form_means_what_it_says(all_of: list[Requirement], labels: dict[str, str], gap: str) -> None:
    selector = parse_labels(",".join(text_of(each, gap) for each in all_of))
    assert selector.matches(labels) == all(holds(each, labels) for each in all_of)
    assert [(each.key, each.operator, set(each.values)) for each in selector.requirements] == [
        (key, operator, set(wanted)) for key, operator, wanted in all_of
    ]


NAMES = {"in": "In", "notin": "NotIn", "exists": "Exists", "!exists": "DoesNotExist"}


@given(st.lists(requirements, max_size=4), labelled)
def test_both_forms_of_a_selector_match_the_same(all_of: list[Requirement], labels: dict[str, str]) -> None:
    kept = {key: wanted[0] for key, operator, wanted in all_of if operator == "="}
    expressions: list[dict[str, Any]] = [
        {"key": key, "operator": NAMES[operator], "values": wanted}
        for key, operator, wanted in all_of
        if operator in NAMES
    ]
    structured = from_label_selector({"matchLabels": kept, "matchExpressions": expressions})
    same = [(key, "=", [value]) for key, value in kept.items()] + [each for each in all_of if each[1] in NAMES]
    text = parse_labels(",".join(text_of(each, "") for each in same))
    assert structured is not None
    assert structured.matches(labels) == text.matches(labels)


fields = st.dictionaries(
    st.sampled_from(("metadata.name", "spec.nodeName", "status.phase")), st.sampled_from(("", "a", "Running"))
)
terms = st.lists(
    st.tuples(
        st.sampled_from(("metadata.name", "spec.nodeName", "status.phase")),
        st.sampled_from(("=", "==", "!=")),
        st.sampled_from(("", "a", "Running")),
    )
)


@given(terms, fields)
def test_field_selectors(all_of: list[tuple[str, str, str]], found: dict[str, str]) -> None:
    selector = parse_fields(",".join("".join(each) for each in all_of))
    expected = all((found.get(path, "") == value) == (operator != "!=") for path, operator, value in all_of)
    assert selector(lambda path: found.get(path, "")) == expected


def test_field_selectors_may_end_with_a_comma_and_escape() -> None:
    found = {"metadata.name": "a,b=c\\"}
    for text in ("metadata.name=a\\,b\\=c\\\\,", ",metadata.name!=x,,metadata.name==a\\,b\\=c\\\\"):
        assert parse_fields(text)(lambda path: found.get(path, ""))
    assert not parse_fields("metadata.name=a,")(lambda path: found.get(path, ""))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("a=b=c", "invalid field selector: unescaped character in value: ="),
        ("a=b\\c", "invalid field selector: invalid escape sequence: \\c"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_field_selectors_that_say_nothing(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why) + "$"):
        parse_fields(text)


@pytest.mark.parametrize("text", ["a=b=c", "!", "a in x", "a in (x", "-a=b", "a=-b", "a,,b", "a=b,", "=b", "a in ()x"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_labels(text)


@given(st.text(max_size=12))
def test_whatever_is_read_is_a_selector_or_refused(text: str) -> None:
    try:
        selector = parse_labels(text)
    except ValueError:
        return
    assert isinstance(selector.matches({"a": "b"}), bool)
