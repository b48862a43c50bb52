"""The lines of heads, each checked and judged once and then remembered: peers repeat themselves, on one connection and on many.

Most lines are passed on unseen; a head of known ones costs a look-up per line, in one call. A line that is new costs a look at its name (names are
few) and one at its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import filterfalse

from gateway.worker.errors import BadHead

__all__ = ["Line", "Lines"]

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = bytes(each if each == 9 or 32 <= each != 127 else each ^ 0x80 for each in range(256))
"""What may stand in a value stays as it is, all else (line ends and other control characters) becomes another byte."""

Line = tuple[bytes, bytes, bytes]
"""Name in lower case, value, and the line as it came."""


class Lines:
    """`special` are the names (in lower case) that somebody wants to see, also with `_` in place of `-`; `secret` those whose lines must not be
    remembered."""

    LIMIT = 4096
    """How many lines of each sort are remembered; names a quarter of that."""
    LONGEST = 256

    def __init__(self, special: Iterable[bytes], secret: Iterable[bytes]) -> None:
        self._special = frozenset(special)
        self._secret = frozenset(secret)
        self._names: dict[bytes, tuple[bytes, bool]] = {}
        """By name as it is written: the name in lower case if somebody wants to see it (else empty), and whether its lines are remembered."""
        self._plain: set[bytes] = {b""}  # what is behind the last line's end
        self._seen: dict[bytes, Line] = {}
        self._is_plain = self._plain.__contains__
        self._known = self._seen.get

    def __len__(self) -> int:
        return len(self._plain) - 1 + len(self._seen)

    def special(self, lines: Iterable[bytes]) -> list[Line]:
        """Those of `lines` (without their ends) that somebody wants to see. Raises BadHead where one of them is no field."""
        known = self._known
        return [
            found
            for line in filterfalse(self._is_plain, lines)
            if (found := known(line) or self._read(line)) is not None
        ]

    def forget(self) -> None:
        """Make room for what comes often now, where there is none left. Until then what is new is not remembered: lines that never come
        again would cost their storing, and drive out those that do."""
        if len(self._plain) > self.LIMIT:
            self._plain.clear()
            self._plain.add(b"")
        if len(self._seen) >= self.LIMIT:
            self._seen.clear()

    def _read(self, line: bytes) -> Line | None:
        name, colon, value = line.partition(b":")
        lower, remembered = self._names.get(name) or self._read_name(name)
        if not colon or value.translate(_VALUE) != value:
            raise BadHead("malformed header field")
        if len(line) > self.LONGEST:
            remembered = False
        if not lower:
            if remembered and len(self._plain) <= self.LIMIT:
                self._plain.add(line)
            return None
        found = (lower, value.strip(b" \t"), line)
        if remembered and len(self._seen) < self.LIMIT:
            self._seen[line] = found
        return found

    def _read_name(self, name: bytes) -> tuple[bytes, bool]:
        if _NAME.fullmatch(name) is None:
            raise BadHead("malformed header field")
        lower = name.lower()
        # Where fields become variables (CGI, WSGI) `X_Call_Id` is the same as `X-Call-Id`, so it is looked at too.
        wanted = lower in self._special or lower.replace(b"_", b"-") in self._special
        found = (lower if wanted else b"", lower not in self._secret)
        if len(self._names) < self.LIMIT // 4 and len(name) <= 64:
            self._names[name] = found
        return found
