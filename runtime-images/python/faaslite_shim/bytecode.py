"""What a package's modules compile to, made once for all instances that are to import them."""

from __future__ import annotations

import importlib.util
import marshal
import sys
from collections.abc import Iterable, Iterator

__all__ = ["TAG", "bytecode", "frames"]

TAG = sys.implementation.cache_tag
_UNCHECKED = (0b01).to_bytes(4, "little")
"""By the hash of a source that isn't looked at again (PEP 552): packages don't change."""


def bytecode(source: bytes, name: str) -> bytes:
    """What belongs into the `.pyc` of a module; b"" where it doesn't compile, which its import will tell."""
    try:
        code = compile(source, name, "exec", dont_inherit=True)
        return b"".join(
            (importlib.util.MAGIC_NUMBER, _UNCHECKED, importlib.util.source_hash(source), marshal.dumps(code))
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return b""


def frames(names: Iterable[str]) -> Iterator[bytes]:
    """The tag of this Python's bytecode, and then what each of the files compiles to, all with their lengths (4 bytes, network order)."""
    yield _frame(str(TAG).encode())
    for name in names:
        try:
            with open(name, "rb") as file:
                source = file.read()
        except OSError:
            source = b""
        yield _frame(bytecode(source, name) if source else b"")


def _frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
