"""HTTP/1.1 heads and body framing (RFC 9112), strict where leniency would let two parsers disagree.

A head is checked by one regular expression and its fields are looked at once: connections remember the field block
that they saw last, since a client mostly repeats it (as an instance does, within a second). Bodies are passed through
as they are; the framing is only followed, to know where they end.
"""

from __future__ import annotations

import re

from gateway.worker.errors import HEADERS_TOO_LARGE, BadHead

__all__ = [
    "REQUEST_LINE", "Chunked", "ReplyHead", "RequestFields", "check_incomplete", "parse_reply", "parse_request_fields", "valid_call_id",
]  # fmt: skip

# The function's name is cut here, since the expression walks over it anyway: groups are method, name, rest, any other
# target, minor version. A target is printable ASCII.
REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) (?:/function/([!-.0->@-~]++)([!-~]*+)|([!-~]++)) HTTP/1\.([01])"
)
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
_TOKEN_START = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z\r]")
_CALL_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*+(?:;[^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")

_MAX_CHUNK_LINE = 4096
_MAX_TRAILER = 16 * 1024

_HOP_BY_HOP = frozenset(
    (
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"http2-settings",
        b"proxy",
    )
)
# Fields that a nomination by `Connection` can't remove: framing, and what the gateway itself decides on.
_NOT_NOMINATED = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"close", b"keep-alive", b"upgrade", b"connection")
)
_REQUEST_SPECIAL = _HOP_BY_HOP | frozenset(
    (b"connection", b"upgrade", b"host", b"content-length", b"transfer-encoding", b"expect", b"x-call-id",
     b"x-faaslite-deadline", b"x-faaslite-busy", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto")
)  # fmt: skip
_REPLY_SPECIAL = _HOP_BY_HOP - {b"proxy-authenticate"} | frozenset(
    (
        b"connection",
        b"upgrade",
        b"content-length",
        b"transfer-encoding",
        b"x-call-id",
        b"x-faaslite-busy",
        b"x-faaslite-cold-start",
    )
)


def valid_call_id(text: bytes) -> bool:
    return _CALL_ID.fullmatch(text) is not None


class RequestFields:
    """What a request's fields say. `forward` is what an instance gets, each field with its line end."""

    __slots__ = (
        "call_id",
        "chunked",
        "close",
        "deadline",
        "expect",
        "forward",
        "has_host",
        "keep_alive",
        "length",
        "upgrade",
    )

    def __init__(self) -> None:
        self.forward = b""
        self.length = 0
        self.chunked = False
        self.close = False
        self.keep_alive = False
        self.expect = False
        self.upgrade = False
        self.has_host = False
        self.call_id = b""
        self.deadline = 0.0
        """Seconds since the epoch, 0 where none was given."""


def parse_request_fields(block: bytes, peer: bytes, *, trust_forwarded: bool = False) -> RequestFields:
    """`block`: the lines of the fields, each with its end. `peer`: the client's address. Raises BadHead."""
    if _FIELDS.fullmatch(block) is None:
        raise BadHead("malformed header field")
    found = RequestFields()
    keep: list[bytes] = []
    nominated: frozenset[bytes] = frozenset()
    lengths = encodings = hosts = 0
    host = upgrade = forwarded_for = forwarded_host = forwarded_proto = b""
    for line in block.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        lower = name.lower()
        if lower not in _REQUEST_SPECIAL:
            keep.append(line)
            continue
        value = value.strip(b" \t")
        if lower == b"host":
            hosts += 1
            host = value
            keep.append(line)
        elif lower == b"content-length":
            lengths += 1
            if _LENGTH.fullmatch(value) is None:
                raise BadHead("malformed Content-Length")
            found.length = int(value)
            keep.append(b"Content-Length: " + value)
        elif lower == b"transfer-encoding":
            encodings += 1
            if value.lower() != b"chunked":
                raise BadHead("unsupported Transfer-Encoding")
            found.chunked = True
            keep.append(b"Transfer-Encoding: chunked")
        elif lower == b"connection":
            nominated |= _tokens(value)
        elif lower == b"upgrade":
            upgrade = value
        elif lower == b"expect":
            if value.lower() != b"100-continue":
                raise BadHead("unsupported Expect")
            found.expect = True
        elif lower == b"x-call-id":
            found.call_id = value if _CALL_ID.fullmatch(value) else b""
        elif lower == b"x-faaslite-deadline":
            found.deadline = _seconds(value)
        elif lower == b"x-forwarded-for":
            forwarded_for = forwarded_for + b", " + value if forwarded_for else value
        elif lower == b"x-forwarded-host":
            forwarded_host = value
        elif lower == b"x-forwarded-proto":
            forwarded_proto = value
    if lengths > 1 or encodings > 1 or (lengths and encodings):
        raise BadHead("conflicting Content-Length and Transfer-Encoding")
    if hosts > 1:
        raise BadHead("more than one Host")
    found.has_host = hosts == 1
    found.close = b"close" in nominated
    found.keep_alive = b"keep-alive" in nominated
    # h2c would hand the instance a connection that speaks another protocol than the gateway believes.
    found.upgrade = bool(upgrade) and b"upgrade" in nominated and upgrade.lower() != b"h2c"
    if found.upgrade:
        keep.append(b"Connection: upgrade\r\nUpgrade: " + upgrade)
    lines = _without(keep, nominated)
    if not trust_forwarded:
        forwarded_for = forwarded_host = forwarded_proto = b""
    lines.append(b"X-Forwarded-For: " + (forwarded_for + b", " + peer if forwarded_for else peer))
    lines.append(b"X-Forwarded-Host: " + (forwarded_host or host))
    lines.append(b"X-Forwarded-Proto: " + (forwarded_proto or b"http"))
    lines.append(b"")
    found.forward = b"\r\n".join(lines)
    return found


class ReplyHead:
    """What the head of an instance's reply says. `head` is the client's: status line and fields without framing by
    `Transfer-Encoding`, without `X-Call-Id`, each with its line end."""

    __slots__ = ("busy", "chunked", "head", "keep", "length", "simple", "status", "upgrade")

    def __init__(self, status: int) -> None:
        self.status = status
        self.head = b""
        self.length = -1
        """-1: not said."""
        self.chunked = False
        self.keep = True
        self.busy = False
        self.upgrade = b""
        self.simple = False
        """A final reply of known length on a connection that stays open: nothing about it needs a second look."""


def parse_reply(head: bytes) -> ReplyHead:
    """`head`: status line and fields, each with its line end. Raises BadHead."""
    line, _, block = head.partition(b"\r\n")
    match = _STATUS_LINE.fullmatch(line)
    if match is None or _FIELDS.fullmatch(block) is None:
        raise BadHead("malformed reply head")
    minor, status = match.groups()
    found = ReplyHead(int(status))
    keep: list[bytes] = []
    nominated: frozenset[bytes] = frozenset()
    for field in block.split(b"\r\n")[:-1]:
        name, _, value = field.partition(b":")
        lower = name.lower()
        if lower not in _REPLY_SPECIAL:
            keep.append(field)
            continue
        value = value.strip(b" \t")
        if lower == b"content-length":
            if found.length >= 0 or _LENGTH.fullmatch(value) is None:
                raise BadHead("malformed Content-Length")
            found.length = int(value)
            keep.append(field)
        elif lower == b"transfer-encoding":
            if found.chunked or value.lower() != b"chunked":
                raise BadHead("unsupported Transfer-Encoding")
            found.chunked = True
        elif lower == b"connection":
            nominated |= _tokens(value)
        elif lower == b"upgrade":
            found.upgrade = value
        elif lower == b"x-faaslite-busy":
            found.busy = found.status == 503
    if found.chunked and found.length >= 0:
        raise BadHead("conflicting Content-Length and Transfer-Encoding")
    found.keep = b"close" not in nominated and (minor == b"1" or b"keep-alive" in nominated)
    lines = [b"HTTP/1.1" + line[8:], *_without(keep, nominated), b""]
    found.head = b"\r\n".join(lines)
    found.simple = (
        found.status >= 200 and found.status not in (204, 304) and found.length >= 0 and found.keep and not found.busy
    )
    return found


def check_incomplete(data: bytes, limit: int) -> None:
    """Refuse what can't become a head any more, rather than wait for its end. Raises BadHead."""
    if len(data) > limit:
        raise BadHead(f"the request head is longer than {limit} bytes", HEADERS_TOO_LARGE)
    if data and _TOKEN_START.match(data) is None:
        raise BadHead("not an HTTP/1.1 request")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise BadHead("bare line feed in the request head")


class Chunked:
    """Follows a chunked body. `payload` counts the bytes of content so far."""

    __slots__ = ("_left", "_line", "_state", "_trailer", "payload")

    def __init__(self) -> None:
        self.payload = 0
        self._left = 0
        self._line = b""
        self._state = _SIZE
        self._trailer = 0

    def feed(self, data: bytes, at: int = 0, content: list[bytes] | None = None) -> int:
        """The index in `data` behind the body's end, -1 where it goes on. Content is added to `content`. Raises BadHead."""
        size = len(data)
        while True:
            if self._state == _CONTENT:
                take = min(self._left, size - at)
                if content is not None and take:
                    content.append(data[at : at + take])
                at += take
                self._left -= take
                if self._left:
                    return -1
                self._state = _CONTENT_END
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                if len(self._line) > (2 if self._state == _CONTENT_END else _MAX_CHUNK_LINE):
                    raise BadHead("malformed chunk")
                return -1
            line = self._line + data[at : end + 1]
            self._line = b""
            at = end + 1
            if len(line) > _MAX_CHUNK_LINE:
                raise BadHead("malformed chunk")
            if self._on_line(line):
                return at

    def _on_line(self, line: bytes) -> bool:
        """Whether this was the last line of the body."""
        if self._state == _CONTENT_END:
            if line != b"\r\n":
                raise BadHead("malformed chunk")
            self._state = _SIZE
        elif self._state == _SIZE:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise BadHead("malformed chunk size")
            self._left = int(match[1], 16)
            self.payload += self._left
            self._state = _CONTENT if self._left else _TRAILER
        else:
            if line == b"\r\n":
                return True
            self._trailer += len(line)
            if _FIELDS.fullmatch(line) is None or self._trailer > _MAX_TRAILER:
                raise BadHead("malformed trailer")
        return False


_SIZE, _CONTENT, _CONTENT_END, _TRAILER = range(4)


_USUAL = {
    each: frozenset((each.lower(),))
    for each in (b"keep-alive", b"close", b"Keep-Alive", b"Close", b"upgrade", b"Upgrade")
}


def _tokens(value: bytes) -> frozenset[bytes]:
    return _USUAL.get(value) or frozenset(each.strip(b" \t").lower() for each in value.split(b","))


def _without(lines: list[bytes], nominated: frozenset[bytes]) -> list[bytes]:
    """`lines` without the fields that `Connection` names."""
    gone = nominated - _NOT_NOMINATED
    return [line for line in lines if line.partition(b":")[0].lower() not in gone] if gone else lines


def _seconds(value: bytes) -> float:
    try:
        found = float(value)
    except ValueError:
        return 0.0
    return found if 0.0 < found < 1e11 else 0.0
