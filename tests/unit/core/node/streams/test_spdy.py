"""SPDY/3.1 frames: what goes out comes in again, in whatever pieces, and what isn't SPDY is said to be none."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.node.streams import spdy
from core.node.streams.spdy import Codec, Data, GoAway, Ping, Reset, SpdyError, SynReply, SynStream

STREAMS = st.integers(1, 2**31 - 1)
NUMBERS = st.integers(0, 2**32 - 1)
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_categories=["Lu"]), max_size=20)
HEADERS = st.dictionaries(NAMES, st.text(st.characters(max_codepoint=255), max_size=60), max_size=6)
FRAMES = st.one_of(
    st.builds(SynStream, STREAMS, HEADERS, st.booleans()),
    st.builds(SynReply, STREAMS, HEADERS, st.booleans()),
    st.builds(Data, STREAMS, st.binary(max_size=300), st.booleans()),
    st.builds(Reset, STREAMS, NUMBERS),
    st.builds(Ping, NUMBERS),
    st.builds(GoAway, STREAMS, NUMBERS),
)


def encoded(codec: Codec, frame: spdy.Frame) -> bytes:
    match frame:
        case SynStream(stream, headers, fin):
            return codec.syn_stream(stream, headers, fin=fin)
        case SynReply(stream, headers, fin):
            return codec.syn_reply(stream, headers, fin=fin)
        case Data(stream, data, fin):
            return codec.data(stream, data, fin=fin)
        case Reset(stream, status):
            return codec.reset(stream, status)
        case Ping(number):
            return codec.ping(number)
        case GoAway(last, status):
            return codec.go_away(last, status)
    raise AssertionError(frame)


def test_the_dictionary_is_that_of_the_specification() -> None:
    """zlib puts the dictionary's checksum into a stream's head: this is what every SPDY/3 peer has there."""
    assert len(spdy.DICTIONARY) == 1423
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2
    block = Codec().syn_stream(1, {"a": "b"})[18:]
    assert block[:6] == bytes.fromhex("78bbe3c6a7c2") or block[2:6] == bytes.fromhex("e3c6a7c2")


@given(st.lists(FRAMES, max_size=12), st.integers(1, 70))
def test_frames_survive_the_wire_in_any_pieces(frames: list[spdy.Frame], size: int) -> None:
    sender, receiver = Codec(), Codec()
    wire = b"".join(encoded(sender, each) for each in frames)
    found = [frame for start in range(0, len(wire), size) for frame in receiver.feed(wire[start : start + size])]
    assert found == frames


def test_a_frame_as_another_implementation_writes_it() -> None:
    """SYN_STREAM of stream 1 with one header, put together by hand after the specification's figures."""
    deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
    plain = struct.pack(">I", 1) + struct.pack(">I", 10) + b"streamtype" + struct.pack(">I", 5) + b"error"
    block = deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)
    head = bytes.fromhex("80030001") + bytes((1,)) + (10 + len(block)).to_bytes(3, "big")
    wire = head + bytes.fromhex("00000001000000000000") + block
    assert list(Codec().feed(wire)) == [SynStream(1, {"streamtype": "error"}, True)]


def test_settings_and_windows_are_left_alone() -> None:
    settings = bytes.fromhex("80030004 0000000c 00000001 00000004 00001000")
    window = bytes.fromhex("80030009 00000008 00000001 00001000")
    assert list(Codec().feed(settings + window + Codec.ping(1))) == [Ping(1)]


def bomb(size: int) -> bytes:
    deflate = zlib.compressobj(9, zdict=spdy.DICTIONARY)
    block = deflate.compress(struct.pack(">II", 1, size) + b"a" * size) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return bytes.fromhex("80030001") + (10 + len(block)).to_bytes(4, "big") + bytes(10) + block


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        (b"GET / HTTP/1.1\r\n", "a frame of"),
        (bytes.fromhex("80020001 00000000"), "version 2"),
        (bytes.fromhex("80030063 00000000"), "type 99"),
        (bytes.fromhex("80030003 00000004 00000001"), "too short"),
        (bytes.fromhex("80030001 00000002 0000"), "too short"),
        (bytes.fromhex("80030001 0000000e") + bytes(10) + b"junk", "can't be read"),
        (bytes.fromhex("00000001 00ffffff"), "16777215 bytes"),
        (bomb(10_000_000), "more than"),
    ],
)
def test_what_is_not_spdy_is_refused(wire: bytes, why: str) -> None:
    with pytest.raises(SpdyError, match=why):
        list(Codec().feed(wire))


def test_a_header_block_that_promises_more_than_it_holds_is_refused() -> None:
    deflate = zlib.compressobj(zdict=spdy.DICTIONARY)
    block = deflate.compress(struct.pack(">II", 2**31, 2**31) + b"a") + deflate.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(SpdyError, match="ends early"):
        list(Codec().feed(bytes.fromhex("80030001") + (10 + len(block)).to_bytes(4, "big") + bytes(10) + block))


@given(st.binary(max_size=400))
def test_nothing_hostile_does_worse_than_an_error(wire: bytes) -> None:
    codec = Codec()
    try:
        for _ in codec.feed(bytes.fromhex("8003") + wire):
            pass
    except SpdyError:
        return
