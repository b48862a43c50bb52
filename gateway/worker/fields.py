"""What the fields of a request's head say, and what of them an instance gets.

A head that is like the last of its connection costs one comparison (`gateway.worker.listener`), one whose fields only have their usual meaning
a look-up per line (`gateway.worker.lines`).
"""

from __future__ import annotations

import re

from gateway.worker.errors import BadHead
from gateway.worker.lines import Line, Lines

__all__ = ["RequestFields", "forget_lines", "parse_request_fields", "with_host"]

_HOST = re.compile(rb"(?i)(^|\r\n)host:[^\r\n]*\r\n")
_HOST_VALUE = re.compile(rb"[^\"\\ \t,/@]*")
_CALL_ID = re.compile(rb"[A-Za-z0-9._\-]{1,64}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-[!-~]*)?")
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

HOP_BY_HOP = frozenset(
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
NOT_NOMINATED = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"close", b"keep-alive", b"upgrade", b"connection")
)
_SPECIAL = HOP_BY_HOP | frozenset(
    (b"connection", b"upgrade", b"host", b"content-length", b"transfer-encoding", b"expect", b"x-call-id", b"traceparent", b"authorization",
     b"x-faaslite-key", b"x-faaslite-token", b"x-faaslite-deadline", b"x-faaslite-revision", b"x-faaslite-busy", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
     b"forwarded", b"origin")
)  # fmt: skip
_SECRET = frozenset((b"authorization", b"cookie", b"x-faaslite-key", b"x-faaslite-token"))
"""Not remembered."""


class RequestFields:
    """What a request's fields say. `forward` is what an instance gets, each field with its line end."""

    forward = b""
    plain = False
    """Nothing but `Host` needed a look: no body, nothing to leave out, nothing that was asked of the gateway."""
    host = b""
    length = 0
    chunked = False
    close = False
    keep_alive = False
    expect = False
    upgrade = False
    has_host = False
    call_id = b""
    traced = False
    """Whether there is a `traceparent`."""
    authorization = b""
    key = b""
    token = b""
    origin = b""
    revision = b""
    """The name of the one that is to be called, whatever the traffic says."""
    deadline = 0.0
    """Seconds since the epoch, 0 where none was given."""


_lines = Lines(_SPECIAL, _SECRET)
_told: dict[tuple[bytes, bytes, bytes], bytes] = {}
"""What `_forwarded` makes of host, peer, scheme, where nobody stood before us."""


def forget_lines() -> None:
    """Make room for what comes often now."""
    _lines.forget()


def _tell(host: bytes, peer: bytes, scheme: bytes) -> bytes:
    _check_host(host)
    if len(_told) >= Lines.LIMIT or len(host) > Lines.LONGEST:
        _told.clear()
    told = _told[host, peer, scheme] = _forwarded(b"", host, scheme, peer, b"")
    return told


def parse_request_fields(
    block: bytes, peer: bytes, *, trust_forwarded: bool = False, scheme: bytes = b"http"
) -> RequestFields:
    """`block`: the lines of the fields, each with its end. `peer`: the client's address. Raises BadHead."""
    lines = block.split(b"\r\n")
    special = _lines.special(lines)
    found = RequestFields()
    if len(special) == 1 and special[0][0] == b"host" and special[0][1]:
        found.plain = found.has_host = True
        found.host = host = special[0][1]
        found.forward = block + (_told.get((host, peer, scheme)) or _tell(host, peer, scheme))
        return found
    return _parse_special(found, block, lines, special, peer, trust_forwarded, scheme)


def _parse_special(
    found: RequestFields,
    block: bytes,
    lines: list[bytes],
    special: list[Line],
    peer: bytes,
    trust_forwarded: bool,
    scheme: bytes,
) -> RequestFields:
    gone: set[bytes] = set()
    extra: list[bytes] = []
    nominated: frozenset[bytes] = frozenset()
    lengths = encodings = hosts = traces = 0
    upgrade = forwarded_for = forwarded_host = forwarded_proto = forwarded = b""
    for lower, value, line in special:
        if lower == b"host":
            hosts += 1
            found.host = value
            if not value:
                raise BadHead("malformed Host")
        elif lower == b"content-length":
            lengths += 1
            if _LENGTH.fullmatch(value) is None:
                raise BadHead("malformed Content-Length")
            found.length = int(value)
            if line[14:] != b": " + value:  # with spaces that another reader might trip over
                gone.add(line)
                extra.append(b"Content-Length: " + value)
        elif lower == b"connection":
            nominated |= tokens(value)
            gone.add(line)
        elif lower == b"traceparent":
            traces += 1
            if _TRACEPARENT.fullmatch(value):
                found.traced = True
            else:
                gone.add(line)
        elif lower == b"authorization":
            found.authorization = value
        elif lower == b"origin":
            found.origin = value
        else:  # with a hyphen it is for us, with an underscore for nobody
            gone.add(line)
            if lower == b"transfer-encoding":
                encodings += 1
                if value.lower() != b"chunked":
                    raise BadHead("unsupported Transfer-Encoding")
                found.chunked = True
                extra.append(b"Transfer-Encoding: chunked")
            elif lower == b"x-call-id":
                found.call_id = value if _CALL_ID.fullmatch(value) else b""
            elif lower == b"upgrade":
                upgrade = value
            elif lower == b"expect":
                if value.lower() != b"100-continue":
                    raise BadHead("unsupported Expect")
                found.expect = True
            elif lower == b"x-faaslite-key":
                found.key = value
            elif lower == b"x-faaslite-revision":
                found.revision = value
            elif lower == b"x-faaslite-token":
                found.token = value
            elif lower == b"x-faaslite-deadline":
                found.deadline = _seconds(value)
            elif lower == b"x-forwarded-for":
                forwarded_for = forwarded_for + b", " + value if forwarded_for else value
            elif lower == b"x-forwarded-host":
                forwarded_host = value
            elif lower == b"x-forwarded-proto":
                forwarded_proto = value
            elif lower == b"forwarded":
                forwarded = forwarded + b", " + value if forwarded else value
    if lengths > 1 or encodings > 1 or (lengths and encodings):
        raise BadHead("conflicting Content-Length and Transfer-Encoding")
    if hosts > 1:
        raise BadHead("more than one Host")
    if traces > 1:  # the standard has such a trace begin anew
        found.traced = False
        gone |= {line for lower, _, line in special if lower == b"traceparent"}
    found.has_host = hosts == 1
    found.close = b"close" in nominated
    found.keep_alive = b"keep-alive" in nominated
    # h2c would hand the instance a connection that speaks another protocol than the gateway believes.
    found.upgrade = bool(upgrade) and b"upgrade" in nominated and upgrade.lower() != b"h2c"
    if found.upgrade:
        extra.append(b"Connection: upgrade\r\nUpgrade: " + upgrade)
    if gone:
        kept = without([line for line in lines if line and line not in gone], nominated) + extra
        kept.append(b"")
        block = b"\r\n".join(kept)
    if trust_forwarded:
        _check_host(found.host)
        told = _forwarded(forwarded_for, forwarded_host or found.host, forwarded_proto or scheme, peer, forwarded)
    else:
        told = _told.get((found.host, peer, scheme)) or _tell(found.host, peer, scheme)
    found.forward = block + told
    return found


def _forwarded(earlier: bytes, host: bytes, scheme: bytes, peer: bytes, forwarded: bytes) -> bytes:
    """`X-Forwarded-*`, and the same as RFC 7239 has it."""
    node = b"_local" if peer == b"unix" else peer if b":" not in peer else b'"[%s]"' % peer
    name = host if _TOKEN.fullmatch(host) else b'"%s"' % host
    return (
        b"X-Forwarded-For: %s%s\r\nX-Forwarded-Host: %s\r\nX-Forwarded-Proto: %s\r\n"
        b"Forwarded: %sfor=%s;host=%s;proto=%s\r\n"
    ) % (
        earlier and earlier + b", ", peer, host, scheme, forwarded and forwarded + b", ", node, name, scheme
    )  # fmt: skip


def with_host(block: bytes, host: bytes) -> bytes:
    """The field block with the host that the target names in place of `Host` (RFC 9112, 3.2.2)."""
    return _HOST.sub(lambda match: b"%sHost: %s\r\n" % (match[1], host), block)


def _check_host(value: bytes) -> None:
    """What would read otherwise to the next one who parses it: in `Forwarded` it stands in quotes."""
    if _HOST_VALUE.fullmatch(value) is None:
        raise BadHead("malformed Host")


_USUAL = {
    each: frozenset((each.lower(),))
    for each in (b"keep-alive", b"close", b"Keep-Alive", b"Close", b"upgrade", b"Upgrade")
}


def tokens(value: bytes) -> frozenset[bytes]:
    return _USUAL.get(value) or frozenset(each.strip(b" \t").lower() for each in value.split(b","))


def without(lines: list[bytes], nominated: frozenset[bytes]) -> list[bytes]:
    """`lines` without the fields that `Connection` names."""
    gone = nominated - NOT_NOMINATED
    return [line for line in lines if line.partition(b":")[0].lower() not in gone] if gone else lines


def _seconds(value: bytes) -> float:
    try:
        found = float(value)
    except ValueError:
        return 0.0
    return found if 0.0 < found < 1e11 else 0.0
