"""Keys that values are encrypted with at rest, kept in a file that its owner alone can read.

Envelope encryption: each value has a key of its own, which is encrypted (wrapped) with a key of the ring. The first key of the
ring is the one that new values are written with; the others still read what was written with them. `Sealer` does it for many small
values, with one key for all that a process writes.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import FaasliteError

__all__ = ["KeyRing", "KeyRingError", "Sealed", "Sealer"]

MAGIC = b"enc:aesgcm:v1:"
_NONCE = 12
_KEY = 32
_WRAPPED = _NONCE + _KEY + 16


class KeyRingError(FaasliteError):
    """The key file can't be used, or a value can't be opened with it."""


class Sealed(NamedTuple):
    """What the head of an encrypted value says."""

    key_id: str
    body: bytes


def read_head(value: bytes) -> Sealed | None:
    """None where the value is not encrypted."""
    if not value.startswith(MAGIC):
        return None
    key_id, _, body = value[len(MAGIC) :].partition(b":")
    return Sealed(key_id.decode("ascii", "replace"), body)


class KeyRing:
    """Keys by id, the first of them primary. `place` is the name under which a value lies: a value moved elsewhere doesn't open."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        if not keys:
            raise KeyRingError("a key ring needs a key")
        self._keys = {name: AESGCM(key) for name, key in keys}
        self._raw = list(keys)
        self.primary = keys[0][0]

    @property
    def ids(self) -> list[str]:
        return [name for name, _ in self._raw]

    def seal(self, value: bytes, place: str) -> bytes:
        """AES-256-GCM with a fresh key, wrapped with the primary key."""
        key, associated = AESGCM.generate_key(256), place.encode()
        wrapping, nonce = secrets.token_bytes(_NONCE), secrets.token_bytes(_NONCE)
        wrapped = wrapping + self._keys[self.primary].encrypt(wrapping, key, associated)
        return MAGIC + self.primary.encode() + b":" + wrapped + nonce + AESGCM(key).encrypt(nonce, value, associated)

    def open(self, value: bytes, place: str) -> bytes:
        """The value itself; one that was never encrypted comes back as it is. Raises `KeyRingError`."""
        sealed = read_head(value)
        if sealed is None:
            return value
        ring = self._keys.get(sealed.key_id)
        if ring is None:
            raise KeyRingError(f"{place} is encrypted with the key {sealed.key_id!r}, which the key file doesn't have")
        body, associated = sealed.body, place.encode()
        try:
            key = ring.decrypt(body[:_NONCE], body[_NONCE:_WRAPPED], associated)
            return AESGCM(key).decrypt(body[_WRAPPED : _WRAPPED + _NONCE], body[_WRAPPED + _NONCE :], associated)
        except (InvalidTag, ValueError) as error:
            raise KeyRingError(f"{place} can't be decrypted: the value or its key is damaged") from error

    def wrap(self, key: bytes, place: str) -> bytes:
        """A key, encrypted with the primary key; it tells which that is."""
        nonce = secrets.token_bytes(_NONCE)
        return self.primary.encode() + b":" + nonce + self._keys[self.primary].encrypt(nonce, key, place.encode())

    def unwrap(self, wrapped: bytes, place: str) -> bytes:
        """Raises `KeyRingError`."""
        name, _, body = wrapped.partition(b":")
        ring = self._keys.get(name.decode("ascii", "replace"))
        if ring is None:
            raise KeyRingError(f"{place}: encrypted with a key that the key file doesn't have")
        try:
            return ring.decrypt(body[:_NONCE], body[_NONCE:], place.encode())
        except (InvalidTag, ValueError) as error:
            raise KeyRingError(f"{place}: can't be decrypted with the keys of the key file, or is damaged") from error

    def current(self, value: bytes) -> bool:
        """Whether the value is encrypted with the primary key."""
        sealed = read_head(value)
        return sealed is not None and sealed.key_id == self.primary

    # The file

    @classmethod
    def load(cls, path: Path) -> KeyRing:
        """From its file, which is made with one key where there is none. Raises `KeyRingError` with what to do."""
        try:
            if path.stat().st_mode & 0o077:
                raise KeyRingError(f"the key file {path} can be read by others; `chmod 600 {path}`")
            listed = json.loads(path.read_bytes())["keys"]
            keys = [(str(each["id"]), base64.b64decode(each["key"], validate=True)) for each in listed]
        except FileNotFoundError:
            made = cls([_fresh("1")])
            made.save(path)
            return made
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KeyRingError(
                f"the key file {path} can't be read ({error}); put its backup back: without it Secrets are lost"
            ) from error
        if not keys:
            raise KeyRingError(f"the key file {path} holds no key; put its backup back: without it Secrets are lost")
        if any(len(key) != _KEY for _, key in keys):
            raise KeyRingError(f"the key file {path} holds a key that isn't {_KEY} bytes long; put its backup back")
        return cls(keys)

    def save(self, path: Path) -> None:
        """In one step, for its owner alone."""
        keys = [{"id": name, "key": base64.b64encode(key).decode()} for name, key in self._raw]
        scratch = path.with_name(path.name + ".new")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            os.write(descriptor, json.dumps({"keys": keys}, indent=1).encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        scratch.replace(path)

    def rotated(self) -> KeyRing:
        """The same ring with a new primary key."""
        number = max((int(each) for each in self.ids if each.isdigit()), default=0) + 1
        return KeyRing([_fresh(str(number)), *self._raw])

    def led_by(self, name: str) -> KeyRing:
        """The same ring with that key as its primary one. Raises `KeyRingError` where it doesn't have it."""
        if name not in self._keys:
            raise KeyRingError(f"the key file doesn't have the key {name!r}")
        return KeyRing(sorted(self._raw, key=lambda each: each[0] != name))

    def without_new(self) -> KeyRing:
        """The ring as it was before `rotated`."""
        return KeyRing(self._raw[1:])

    def without_old(self) -> KeyRing:
        """The primary key alone: for when nothing is encrypted with the others any more."""
        return KeyRing(self._raw[:1])


def _fresh(name: str) -> tuple[str, bytes]:
    return name, AESGCM.generate_key(256)


class Sealer:
    """Encrypts values of `what` (`calls`, say). One key of its own does for all that this object seals, up to a number that random
    nonces allow by far (NIST SP 800-38D, 8.3); wrapped with the ring's primary key it stands before each value."""

    MAGIC = b"enc:many:v1:"
    MOST = 1 << 28
    _REMEMBERED = 1024

    def __init__(self, ring: KeyRing, what: str) -> None:
        self._ring = ring
        self._what = what
        self._opened: dict[bytes, AESGCM] = {}
        self._fresh()

    def seal(self, value: bytes, place: str) -> bytes:
        """`place` is what the value belongs to; it doesn't open as another's."""
        self._left -= 1
        if self._left < 0:
            self._fresh()
        nonce = secrets.token_bytes(_NONCE)
        return self._head + nonce + self._key.encrypt(nonce, value, place.encode())

    def open(self, value: bytes, place: str) -> bytes:
        """The value itself; one that was never encrypted comes back as it is. Raises `KeyRingError`."""
        if not value.startswith(self.MAGIC):
            return value
        at = len(self.MAGIC) + 2
        end = at + int.from_bytes(value[at - 2 : at], "big")
        wrapped = value[at:end]
        key = self._opened.get(wrapped)
        if key is None:
            if len(self._opened) >= self._REMEMBERED:
                self._opened.clear()
            key = self._opened[wrapped] = AESGCM(self._ring.unwrap(wrapped, self._what))
        try:
            return key.decrypt(value[end : end + _NONCE], value[end + _NONCE :], place.encode())
        except (InvalidTag, ValueError) as error:
            raise KeyRingError(f"{self._what}: {place} can't be decrypted, it is damaged") from error

    def use(self, ring: KeyRing) -> None:
        """Encrypt with the primary key of this ring from now on, and decrypt with all of it."""
        self._ring = ring
        self._fresh()

    def key_of(self, value: bytes) -> str:
        """The id of the ring's key that the value is encrypted with, "" where it isn't encrypted."""
        if not value.startswith(self.MAGIC):
            return ""
        at = len(self.MAGIC) + 2
        wrapped = value[at : at + int.from_bytes(value[at - 2 : at], "big")]
        return wrapped.partition(b":")[0].decode("ascii", "replace")

    def current(self, value: bytes) -> bool:
        """Whether the value is encrypted with the ring's primary key."""
        return self.key_of(value) == self._ring.primary

    def _fresh(self) -> None:
        key = AESGCM.generate_key(256)
        wrapped = self._ring.wrap(key, self._what)
        self._key = AESGCM(key)
        self._head = self.MAGIC + len(wrapped).to_bytes(2, "big") + wrapped
        self._left = self.MOST
