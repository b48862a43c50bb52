"""HTTP/1.1 heads and body framing (RFC 9112), strict where leniency would let two parsers disagree.

Request lines are remembered, and so are the lines of fields (`gateway.worker.lines`); an instance's reply is compared with its last head, which
it may repeat. Bodies are passed through as they are; the framing is only followed, to know where they end.
"""

from __future__ import annotations

import re

import msgspec

from gateway.worker.errors import HEADERS_TOO_LARGE, BadHead
from gateway.worker.fields import HOP_BY_HOP, tokens, without
from gateway.worker.lines import Lines

__all__ = [
    "Chunked", "ReplyHead", "RequestLine", "RequestLines", "check_incomplete", "parse_reply", "parse_request_line", "valid_call_id",
]  # fmt: skip

_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}")
_TARGET = bytes(each if 33 <= each <= 126 else each ^ 0x80 for each in range(256))
"""What may stand in a target (printable ASCII) stays as it is, all else becomes another byte."""
_IDEMPOTENT = {
    b"GET": True,
    b"HEAD": True,
    b"OPTIONS": True,
    b"PUT": True,
    b"DELETE": True,
    b"TRACE": True,
    b"POST": False,
    b"PATCH": False,
}
"""The usual methods, and whether sending such a request twice does what sending it once does (RFC 9110, 9.2.2)."""
_FUNCTION = b"/function/"
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?")
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
_TOKEN_START = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z\r]")
_CALL_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*+(?:;[^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n")

_MAX_CHUNK_LINE = 4096
_MAX_TRAILER = 16 * 1024

_REPLY_SPECIAL = HOP_BY_HOP - {b"proxy-authenticate"} | frozenset(
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


class RequestLine(msgspec.Struct, eq=False, gc=False):
    """`name` is the function's as it stands in the path, None for any other target; `start` the line that an instance gets, with its end, `path` the target
    that came. `authority` is that of a target in absolute form."""

    method: bytes
    idempotent: bool
    http10: bool
    name: bytes | None
    path: bytes
    start: bytes
    authority: bytes = b""


def parse_request_line(line: bytes) -> RequestLine:
    """Raises BadHead."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise BadHead("malformed request line")
    method, target, version = parts
    if method == b"CONNECT":  # what follows a good answer to it is no HTTP, for whoever takes it seriously
        raise BadHead("CONNECT is for proxies")
    idempotent = _IDEMPOTENT.get(method)
    if (
        (idempotent is None and _METHOD.fullmatch(method) is None)
        or not target
        or target.translate(_TARGET) != target
        or (version != b"HTTP/1.1" and version != b"HTTP/1.0")
    ):
        raise BadHead("malformed request line")
    authority = b""
    if target[:1] != b"/":
        authority, target = _origin_form(target)
    name: bytes | None = None
    rest = target[1:]
    pieces = target.split(b"/", 3)
    if len(pieces) == 4 and pieces[1] == b"function" and b"?" not in pieces[2]:
        name = pieces[2] or None
        if name is not None:
            rest = pieces[3]
    elif target.startswith(_FUNCTION):  # without a path below the name
        name = target[10:].partition(b"?")[0] or None
        if name is not None:
            rest = target[10 + len(name) :]
    start = b"".join((method, b" /", rest, b" HTTP/1.1\r\n"))
    return RequestLine(method, idempotent or False, version == b"HTTP/1.0", name, target, start, authority)


class RequestLines:
    """Request lines that were read before, bounded in number and length."""

    LIMIT = 2048
    LONGEST = 512

    def __init__(self) -> None:
        self._known: dict[bytes, RequestLine] = {}
        self.known = self._known.get
        """One that was read before, else None."""

    def read(self, line: bytes) -> RequestLine:
        """Raises BadHead."""
        found = parse_request_line(line)
        if len(self._known) < self.LIMIT and len(line) <= self.LONGEST:
            self._known[line] = found
        return found

    def forget(self) -> None:
        """Make room for what comes often now, where there is none left."""
        if len(self._known) >= self.LIMIT:
            self._known.clear()


def _origin_form(target: bytes) -> tuple[bytes, bytes]:
    """Authority, and path with query, of a target in absolute form, which proxies are sent (RFC 9112, 3.2.2). Raises BadHead."""
    scheme, _, rest = target.partition(b"://")
    slash = rest.find(b"/")
    if scheme.lower() not in (b"http", b"https") or slash < 1:
        raise BadHead("the request target is no path")
    return rest[:slash], rest[slash:]


class ReplyHead(msgspec.Struct, eq=False, gc=False):
    """What the head of an instance's reply says. `head` is the client's: status line and fields without framing by
    `Transfer-Encoding`, without `X-Call-Id`, each with its line end."""

    status: int
    head: bytes = b""
    length: int = -1
    """-1: not said."""
    chunked: bool = False
    keep: bool = True
    busy: bool = False
    upgrade: bytes = b""
    simple: bool = False
    """A final reply of known length on a connection that stays open: nothing about it needs a second look."""


_lines = Lines(_REPLY_SPECIAL, (b"set-cookie",))


def forget_lines() -> None:
    """Make room for what comes often now."""
    _lines.forget()


def parse_reply(head: bytes) -> ReplyHead:
    """`head`: status line and fields, each with its line end. Raises BadHead."""
    lines = head.split(b"\r\n")
    line = lines[0]
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        raise BadHead("malformed reply head")
    minor, status = match.groups()
    found = ReplyHead(int(status))
    gone: set[bytes] = set()
    nominated: frozenset[bytes] = frozenset()
    del lines[0]
    for lower, value, field in _lines.special(lines):
        if lower == b"content-length":
            if found.length >= 0 or _LENGTH.fullmatch(value) is None:
                raise BadHead("malformed Content-Length")
            found.length = int(value)
            continue
        gone.add(field)
        if lower == b"transfer-encoding":
            if found.chunked or value.lower() != b"chunked":
                raise BadHead("unsupported Transfer-Encoding")
            found.chunked = True
        elif lower == b"connection":
            nominated |= tokens(value)
        elif lower == b"upgrade":
            found.upgrade = value
        elif lower == b"x-faaslite-busy":
            found.busy = found.status == 503
    if found.chunked and found.length >= 0:
        raise BadHead("conflicting Content-Length and Transfer-Encoding")
    found.keep = b"close" not in nominated and (minor == b"1" or b"keep-alive" in nominated)
    if gone:
        kept = without([each for each in lines if each and each not in gone], nominated)
        found.head = b"\r\n".join((b"HTTP/1.1" + line[8:], *kept, b""))
    else:
        found.head = b"HTTP/1.1" + head[8:]
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
