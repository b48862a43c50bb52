"""The signing keys of an OpenID Connect issuer: found by discovery, kept, and asked for again when a token names one that isn't known.

OpenID Connect Discovery 1.0 and RFC 7517. However many tokens come with names of keys that nobody has, the issuer is asked once per `BOUND`
seconds, and no request waits longer than `PATIENCE`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

import aiohttp
import jwt
import msgspec

from core.clock import monotonic
from core.errors import FaasliteError

__all__ = ["BOUND", "IssuerError", "IssuerKeys"]

log = logging.getLogger(__name__)

BOUND = 10.0
PATIENCE = 5.0
FRESH = 3600.0
"""Seconds after which keys are asked for again in the background, so that one which the issuer took back is forgotten."""
_LIMIT = 1 << 20


class IssuerError(FaasliteError):
    """The issuer's keys can't be had; the message says why."""


class IssuerKeys:
    """`url` is the issuer's (https), `context` says which authorities are trusted for it."""

    def __init__(self, url: str, context: ssl.SSLContext, clock: Callable[[], float] = monotonic) -> None:
        self.generation = 0
        """Grows when the keys change: what was verified with others is to be verified again."""
        self._url = url
        self._context = context
        self._clock = clock
        self._raw: dict[str, Any] = {}
        self._keys: dict[str, Any] = {}
        self._asked: float | None = None
        self._read = 0.0
        self._trouble = ""
        self._task: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def key(self, name: str) -> Any:
        """The key of that name ("": the only one). Raises `IssuerError`."""
        found = self._find(name)
        now = self._clock()
        if found is not None:
            if now - self._read > FRESH and (self._asked is None or now - self._asked > BOUND):
                self._begin(now)
            return found
        if self._task is None and (self._asked is None or now - self._asked >= BOUND):
            self._begin(now)
        if self._task is not None:
            await asyncio.wait((self._task,))
            found = self._find(name)
        if found is None:
            raise IssuerError(self._trouble or f"the issuer has no key {name!r}")
        return found

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def _find(self, name: str) -> Any:
        if name or len(self._keys) != 1:
            return self._keys.get(name)
        return next(iter(self._keys.values()))

    def _begin(self, now: float) -> None:
        """One question at a time; all who wait for it share its answer."""
        self._asked = now
        self._task = asyncio.get_running_loop().create_task(self._refresh(), name=f"keys of {self._url}")
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._task = None

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                keys = await self._fetch()
        except (IssuerError, aiohttp.ClientError, OSError, TimeoutError) as error:
            self._trouble = f"the issuer {self._url} doesn't give its keys: {error or 'no answer in time'}"
            log.warning("%s; tokens signed with keys that are not known are refused", self._trouble)
            return
        self._trouble, self._read = "", self._clock()
        if keys != self._raw:
            self.generation += 1
            self._raw, self._keys = keys, self._read_keys(keys)

    def _read_keys(self, keys: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, each in keys.items():
            try:
                found[name] = jwt.PyJWK.from_dict(each).key
            except (jwt.PyJWTError, ValueError) as error:
                log.warning("the issuer %s has a key %r that can't be read: %s", self._url, name, error)
        return found

    async def _fetch(self) -> dict[str, Any]:
        found = await self._get(f"{self._url.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self._url:
            raise IssuerError(f"its discovery document is of the issuer {found.get('issuer')!r}")
        where = found.get("jwks_uri")
        if not isinstance(where, str) or not where.startswith("https://"):
            raise IssuerError(f"its jwks_uri {where!r} is no https URL")
        keys = (await self._get(where)).get("keys")
        if not isinstance(keys, list):
            raise IssuerError(f"{where} has no keys")
        return {
            str(each.get("kid") or ""): each
            for each in keys
            if isinstance(each, dict) and each.get("use", "sig") == "sig" and each.get("kty") in ("RSA", "EC")
        }

    async def _get(self, url: str) -> dict[str, Any]:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=2)
            self._session = aiohttp.ClientSession(connector=connector, headers={"User-Agent": "faaslite"})
        async with self._session.get(url, allow_redirects=False) as reply:
            if reply.status != 200:
                raise IssuerError(f"{url} answered {reply.status}")
            data = await reply.content.read(_LIMIT)
        try:
            found = msgspec.json.decode(data)
        except msgspec.MsgspecError:
            found = None
        if not isinstance(found, dict):
            raise IssuerError(f"{url} gave no JSON object")
        return found
