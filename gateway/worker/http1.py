"""HTTP/1.1 heads and body framing (RFC 9112), strict where leniency would let two parsers disagree.

Request lines are remembered, as the lines of fields are (`gateway.worker.fields`); an instance's reply is compared with its last head, which
it repeats within a second. Bodies are passed through as they are; the framing is only followed, to know where they end.
"""

from __future__ import annotations

import re

from gateway.worker.errors import HEADERS_TOO_LARGE, BadHead
from gateway.worker.fields import HOP_BY_HOP, tokens, without

__all__ = [
    "REQUEST_LINE", "Chunked", "ReplyHead", "RequestLine", "RequestLines", "check_incomplete", "parse_reply", "valid_call_id",
]  # fmt: skip

# The function's name is cut here, since the expression walks over it anyway: groups are method, name, rest, any other
# target, minor version. A target is printable ASCII.
REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) (?:/function/([!-.0->@-~]++)([!-~]*+)|([!-~]++)) HTTP/1\.([01])"
)
_FUNCTION_PATH = re.compile(rb"/function/([!-.0->@-~]++)([!-~]*+)")
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


class RequestLine:
    """`name` is the function's as it stands in the path, None for any other target; `target` what an instance gets, `path` what came."""

    __slots__ = ("authority", "http10", "method", "name", "path", "start")

    def __init__(self, line: bytes) -> None:
        match = REQUEST_LINE.fullmatch(line)
        if match is None:
            raise BadHead("malformed request line")
        method, name, rest, target, minor = match.groups()
        self.authority = b""
        if name is None and target[:1] != b"/":
            self.authority, target = _origin_form(target)
            name, rest = _function(target)
        self.method = method
        self.name = name
        self.http10 = minor == b"0"
        self.path = target if name is None else b"/function/" + name + rest
        if name is not None:
            target = rest if rest[:1] == b"/" else b"/" + rest
        self.start = b"%s %s HTTP/1.1\r\n" % (method, target)


class RequestLines(dict[bytes, RequestLine]):
    """Request lines that were read before, bounded in number and length. A miss reads; raises BadHead."""

    LIMIT = 2048
    LONGEST = 512

    def __missing__(self, line: bytes) -> RequestLine:
        found = RequestLine(line)
        if len(self) < self.LIMIT and len(line) <= self.LONGEST:
            self[line] = found
        return found

    def forget(self) -> None:
        """Make room for what comes often now, where there is none left."""
        if len(self) >= self.LIMIT:
            self.clear()


def _origin_form(target: bytes) -> tuple[bytes, bytes]:
    """Authority, and path with query, of a target in absolute form, which proxies are sent (RFC 9112, 3.2.2). Raises BadHead."""
    scheme, _, rest = target.partition(b"://")
    slash = rest.find(b"/")
    if scheme.lower() not in (b"http", b"https") or slash < 1:
        raise BadHead("the request target is no path")
    return rest[:slash], rest[slash:]


def _function(target: bytes) -> tuple[bytes | None, bytes]:
    match = _FUNCTION_PATH.fullmatch(target)
    return (match[1], match[2]) if match is not None else (None, b"")


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
            nominated |= tokens(value)
        elif lower == b"upgrade":
            found.upgrade = value
        elif lower == b"x-faaslite-busy":
            found.busy = found.status == 503
    if found.chunked and found.length >= 0:
        raise BadHead("conflicting Content-Length and Transfer-Encoding")
    found.keep = b"close" not in nominated and (minor == b"1" or b"keep-alive" in nominated)
    lines = [b"HTTP/1.1" + line[8:], *without(keep, nominated), b""]
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
