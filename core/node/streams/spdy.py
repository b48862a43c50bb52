"""SPDY/3.1 frames, as far as Kubernetes' clients speak them (draft-mbelshe-httpbis-spdy-00). Pure: bytes in, frames out, and back.

kubectl forwards ports over it inside of a WebSocket, and falls back to it for commands. Its Go implementation keeps no windows, so WINDOW_UPDATE and
SETTINGS are read and left alone. A header block is compressed within one zlib stream per direction that lasts as long as the connection.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = [
    "CANCEL", "DICTIONARY", "PROTOCOL_ERROR", "REFUSED_STREAM", "Codec", "Data", "Frame", "GoAway", "Headers", "Ping", "Reset", "SpdyError",
    "SynReply", "SynStream",
]  # fmt: skip

MAX_FRAME = 1 << 20
MAX_HEADERS = 64 << 10
PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 1, 3, 5
_VERSION = 3
_SYN_STREAM, _SYN_REPLY, _RESET, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE, _CREDENTIAL = (
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    9,
    10,
)
_IGNORED = (_SETTINGS, _WINDOW_UPDATE, _CREDENTIAL)
_FIN = 1
_STREAM_BITS = 0x7FFFFFFF

_WORDS = [
    "options",
    "head",
    "post",
    "put",
    "delete",
    "trace",
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "connection",
    "content-base",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-md5",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "location",
    "max-forwards",
    "pragma",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "retry-after",
    "server",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "vary",
    "via",
    "warning",
    "www-authenticate",
    "method",
    "get",
    "status",
]
_TEXT = (
    "1001012012022052063003023033043053063074024054064074084094104114124134144154164175025045052"
    "03 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found500 Internal "
    "Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, "
    "Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivate"
    "max-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _counted(words: list[str]) -> bytes:
    return b"".join(struct.pack(">I", len(each)) + each.encode() for each in words)


DICTIONARY = (
    _counted([*_WORDS, "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"])
    + _TEXT.encode()
)
"""What both sides take as said before the first header block (2.6.10.1)."""


class SpdyError(Exception):
    """The other side doesn't speak SPDY/3.1; the connection can't go on."""


class SynStream(NamedTuple):
    stream: int
    headers: Mapping[str, str]
    fin: bool = False


class SynReply(NamedTuple):
    stream: int
    headers: Mapping[str, str]
    fin: bool = False


class Headers(NamedTuple):
    stream: int
    headers: Mapping[str, str]
    fin: bool = False


class Data(NamedTuple):
    stream: int
    data: bytes
    fin: bool = False


class Reset(NamedTuple):
    stream: int
    status: int


class Ping(NamedTuple):
    id: int


class GoAway(NamedTuple):
    last: int
    status: int


Frame = SynStream | SynReply | Headers | Data | Reset | Ping | GoAway


class Codec:
    """One connection's. Frames must be sent in the order in which they were encoded."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._buffer = bytearray()

    # In

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. Raises `SpdyError`."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= 8:
                first, second = struct.unpack_from(">II", buffer, start)
                length = second & 0xFFFFFF
                if length > MAX_FRAME:
                    raise SpdyError(f"a frame of {length} bytes")
                if len(buffer) - start - 8 < length:
                    break
                payload = bytes(buffer[start + 8 : start + 8 + length])
                start += 8 + length
                frame = self._frame(first, second >> 24, payload)
                if frame is not None:
                    yield frame
        finally:
            del buffer[:start]

    def _frame(self, first: int, flags: int, payload: bytes) -> Frame | None:
        if not first >> 31:
            return Data(first, payload, bool(flags & _FIN))
        version, kind = first >> 16 & 0x7FFF, first & 0xFFFF
        if version != _VERSION:
            raise SpdyError(f"version {version} of SPDY")
        if kind in _IGNORED:
            return None
        try:
            if kind == _SYN_STREAM:
                stream, _, _ = struct.unpack_from(">IIH", payload)
                return SynStream(stream & _STREAM_BITS, self._headers(payload[10:]), bool(flags & _FIN))
            number = struct.unpack_from(">I", payload)[0]
            if kind in (_SYN_REPLY, _HEADERS):
                make = SynReply if kind == _SYN_REPLY else Headers
                return make(number & _STREAM_BITS, self._headers(payload[4:]), bool(flags & _FIN))
            if kind == _PING:
                return Ping(number)
            if kind in (_RESET, _GOAWAY):
                status = struct.unpack_from(">I", payload, 4)[0]
                return Reset(number & _STREAM_BITS, status) if kind == _RESET else GoAway(number & _STREAM_BITS, status)
        except struct.error as error:
            raise SpdyError(f"a frame of type {kind} that is too short") from error
        raise SpdyError(f"a frame of type {kind}")

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, MAX_HEADERS)
        except zlib.error as error:
            raise SpdyError(f"a header block that can't be read: {error}") from error
        if self._inflate.unconsumed_tail:
            raise SpdyError(f"a header block of more than {MAX_HEADERS} bytes")
        pieces: list[str] = []
        position = 4
        try:
            count = struct.unpack_from(">I", plain)[0]
            while len(pieces) < 2 * count:
                length = struct.unpack_from(">I", plain, position)[0]
                piece = plain[position + 4 : position + 4 + length]
                if len(piece) < length:
                    raise SpdyError("a header block that ends early")
                pieces.append(piece.decode("latin-1"))
                position += 4 + length
        except struct.error as error:
            raise SpdyError("a header block that ends early") from error
        return {name.lower(): value for name, value in zip(pieces[::2], pieces[1::2], strict=True)}

    # Out

    def syn_stream(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        return _control(_SYN_STREAM, struct.pack(">IIH", stream, 0, 0) + self._block(headers), fin)

    def syn_reply(self, stream: int, headers: Mapping[str, str], *, fin: bool = False) -> bytes:
        return _control(_SYN_REPLY, struct.pack(">I", stream) + self._block(headers), fin)

    @staticmethod
    def data(stream: int, data: bytes, *, fin: bool = False) -> bytes:
        return struct.pack(">II", stream, (_FIN << 24 if fin else 0) | len(data)) + data

    @staticmethod
    def reset(stream: int, status: int) -> bytes:
        return _control(_RESET, struct.pack(">II", stream, status))

    @staticmethod
    def ping(number: int) -> bytes:
        return _control(_PING, struct.pack(">I", number))

    @staticmethod
    def go_away(last: int, status: int = 0) -> bytes:
        return _control(_GOAWAY, struct.pack(">II", last, status))

    def _block(self, headers: Mapping[str, str]) -> bytes:
        words = [each for name, value in headers.items() for each in (name.lower(), value)]
        plain = struct.pack(">I", len(headers)) + b"".join(
            struct.pack(">I", len(each)) + each.encode("latin-1") for each in words
        )
        return self._deflate.compress(plain) + self._deflate.flush(zlib.Z_SYNC_FLUSH)


def _control(kind: int, payload: bytes, fin: bool = False) -> bytes:
    return struct.pack(">II", 1 << 31 | _VERSION << 16 | kind, (_FIN << 24 if fin else 0) | len(payload)) + payload
