"""WebSocket frames: what a client may send in any pieces is read as sent; what it may not is refused with the right code."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[4] / "runtime-images" / "python"))
try:
    from faaslite_shim.frames import (
        BINARY,
        CLOSE,
        CONTINUATION,
        NO_STATUS,
        PING,
        TEXT,
        Message,
        Parser,
        Violation,
        accept_key,
        close_payload,
        frame,
    )
finally:
    sys.path.pop()

LIMIT = 100_000
KEY = b"\x37\xfa\x21\x3d"
"""The mask of the examples in RFC 6455, 5.7."""


def masked(kind: int, payload: bytes, *, final: bool = True, first: int = 0) -> bytes:
    """A frame as clients send them."""
    whole = frame(kind, payload)
    extended = {126: 2, 127: 8}.get(whole[1], 0)
    body = bytes(each ^ KEY[at % 4] for at, each in enumerate(payload))
    return bytes(((0x80 if final else 0) | kind | first, 0x80 | whole[1])) + whole[2 : 2 + extended] + KEY + body


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(each % (len(data) + 1) for each in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


message = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=300)),
    st.tuples(st.just(BINARY), st.binary(max_size=70_000)),
    st.tuples(st.just(PING), st.binary(max_size=125)),
)


@given(st.lists(message, max_size=5), st.lists(st.integers(0, 1 << 20), max_size=8), st.data())
def test_any_messages_in_any_pieces(messages, cuts, data):
    wire = b""
    for kind, content in messages:
        payload = content.encode() if isinstance(content, str) else content
        parts = pieces(payload, data.draw(st.lists(st.integers(0, 1 << 20), max_size=3))) if kind != PING else []
        if len(parts) < 2:
            wire += masked(kind, payload)
            continue
        for at, part in enumerate(parts):
            wire += masked(CONTINUATION if at else kind, part, final=at == len(parts) - 1)
            wire += masked(PING, b"between") if at == 0 else b""
    parser, found = Parser(LIMIT), []
    for part in pieces(wire, cuts):
        found += parser.feed(part)
    kept = [each for each in found if each.data != b"between"]
    assert kept == [Message(kind, content) for kind, content in messages]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (frame(TEXT, b"not masked"), 1002),
        (masked(TEXT, b"x", first=0x40), 1002),
        (masked(3, b"x"), 1002),
        (masked(11, b"x"), 1002),
        (masked(CONTINUATION, b"of nothing"), 1002),
        (masked(TEXT, b"a", final=False) + masked(TEXT, b"b"), 1002),
        (masked(PING, b"a", final=False), 1002),
        (masked(PING, b"x" * 126), 1002),
        (masked(TEXT, b"\xff\xfe"), 1007),
        (masked(TEXT, b"\xe2\x82", final=False) + masked(CONTINUATION, b"x"), 1007),
        (masked(CLOSE, b"\x03"), 1002),
        (masked(CLOSE, (1005).to_bytes(2, "big")), 1002),
        (masked(CLOSE, (2999).to_bytes(2, "big")), 1002),
        (masked(CLOSE, (1000).to_bytes(2, "big") + b"\xff"), 1007),
        (bytes((0x82, 0xFF)) + (LIMIT + 1).to_bytes(8, "big"), 1009),
        (masked(BINARY, b"x" * LIMIT, final=False) + masked(CONTINUATION, b"x"), 1009),
    ],
)
def test_what_breaks_the_protocol(wire, code):
    with pytest.raises(Violation) as found:
        Parser(LIMIT).feed(wire)
    assert found.value.code == code


@given(st.binary(max_size=400))
def test_garbage_is_read_or_refused(data):
    try:
        Parser(LIMIT).feed(data)
    except Violation as violation:
        assert violation.code in (1002, 1007, 1009)


def test_close_frames():
    assert Parser(LIMIT).feed(masked(CLOSE, b"")) == [Message(CLOSE, "", NO_STATUS)]
    assert Parser(LIMIT).feed(masked(CLOSE, close_payload(4000, "bye"))) == [Message(CLOSE, "bye", 4000)]
    assert close_payload(NO_STATUS, "") == b""
    long = close_payload(1000, "é" * 100)
    assert len(long) <= 125 and long[2:].decode() == "é" * 61


def test_the_answer_to_a_key():
    assert accept_key(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # the example of RFC 6455, 1.3
    assert accept_key(b"") is None and accept_key(b"c2hvcnQ=") is None and accept_key(b"!!") is None
