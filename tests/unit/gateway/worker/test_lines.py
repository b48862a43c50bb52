from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.worker.errors import BadHead
from gateway.worker.lines import Lines

FIELD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")
"""A field line as RFC 9112 has it, with obsolete text allowed."""


def test_only_those_that_somebody_wants_to_see_are_told_each_time():
    lines = Lines((b"host", b"te"), ())
    for _ in range(2):
        found = lines.special([b"Accept: a", b"HOST:  h\t", b"X-Te: b", b"te:", b""])
        assert found == [(b"host", b"h", b"HOST:  h\t"), (b"te", b"", b"te:")]
    assert len(lines) == 4


def test_names_that_only_differ_in_an_underscore_are_told_too():
    lines = Lines((b"x-call-id",), ())
    assert [name for name, _, _ in lines.special([b"X_Call-Id: a", b"X-Call-Id: b", b"X_Call: c"])] == [
        b"x_call-id",
        b"x-call-id",
    ]


@given(st.one_of(st.binary(max_size=12), st.from_regex(rb"[a-c!(]{0,2}:[ -~\t\r\n\x7f\xff]{0,5}", fullmatch=True)))
def test_what_is_no_field_is_refused_and_never_remembered(line):
    lines = Lines((b"a",), ())
    good = line == b"" or FIELD.fullmatch(line) is not None
    for _ in range(2):
        try:
            lines.special([line])
            assert good
        except BadHead:
            assert not good
            assert len(lines) == 0


@pytest.mark.parametrize("name", [b"X-Number", b"Host"])
def test_they_are_remembered_within_bounds(name):
    lines = Lines((b"host",), ())
    for number in range(2 * Lines.LIMIT):
        lines.special([name + b": %d" % number])
    assert len(lines) == Lines.LIMIT
    assert bool(lines.special([name + b": 1"])) == (name == b"Host")
    lines.forget()
    assert len(lines) == 0
    lines.special([name + b": 1"])
    lines.forget()
    assert len(lines) == 1, "there is room still"
    lines.special([name + b": " + b"x" * Lines.LONGEST])
    assert len(lines) == 1, "long ones are not worth it"


def test_names_are_remembered_within_bounds():
    lines = Lines((), ())
    for number in range(Lines.LIMIT):
        lines.special([b"X-%d: a" % number])
    assert len(lines._names) == Lines.LIMIT // 4


def test_secrets_are_not_remembered():
    lines = Lines((b"authorization",), (b"authorization", b"cookie"))
    for _ in range(2):
        assert len(lines.special([b"Cookie: a", b"Authorization: b"])) == 1
    assert len(lines) == 0
