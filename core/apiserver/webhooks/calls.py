"""Asks a webhook over HTTPS: at a URL, or at the ready endpoints of a Service.

The certificate must be for `NAME.NAMESPACE.svc` where a Service is asked, whatever address it is reached at. Connections are kept; nothing of
the environment (proxies) is used and no redirect is followed.
"""

from __future__ import annotations

import random
import ssl
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec

from core.api.kinds import ENDPOINT_SLICE, SERVICE
from core.apiserver.cache import Cache
from core.apiserver.webhooks.hooks import Hook
from core.store.base import Store

__all__ = ["CallFailed", "Calls"]

_MAX_ANSWER = 3 * 1024 * 1024
_CONTEXTS = 64


class CallFailed(Exception):
    """The webhook couldn't be asked; the text says why."""


class Calls:
    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    async def ask(self, hook: Hook, review: Mapping[str, Any]) -> bytes:
        """The body of the answer. Raises `CallFailed`."""
        query = {"timeout": f"{hook.timeout:g}s"}
        body = msgspec.json.encode(review)
        context = self._context(hook.bundle)
        if hook.url:
            return await self._post(hook.url, hook.url, body, query, context, hook.timeout, None)
        namespace, name, port, path = hook.service
        host = f"{name}.{namespace}.svc"
        shown = f"https://{host}:{port}/{path.lstrip('/')}"
        addresses = await self._endpoints(namespace, name, port, shown)
        for left, (address, number) in enumerate(reversed(addresses)):
            url = f"https://{f'[{address}]' if ':' in address else address}:{number}/{path.lstrip('/')}"
            try:
                return await self._post(url, shown, body, query, context, hook.timeout, host)
            except _Unreachable as error:
                if left == len(addresses) - 1:
                    raise CallFailed(str(error)) from error
        raise AssertionError("the last address answers or raises")

    async def _post(
        self,
        url: str,
        shown: str,
        body: bytes,
        query: Mapping[str, str],
        context: ssl.SSLContext,
        seconds: float,
        host: str | None,
    ) -> bytes:
        if self._session is None:
            self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        headers = {"Content-Type": "application/json", "Accept": "application/json", **({"Host": host} if host else {})}
        what = f'Post "{shown}?timeout={query["timeout"]}"'
        try:
            async with self._session.post(
                url, data=body, params=query, headers=headers, ssl=context, server_hostname=host, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as reply:  # fmt: skip
                found = await reply.content.read(_MAX_ANSWER + 1)
                while len(found) <= _MAX_ANSWER and (more := await reply.content.read(_MAX_ANSWER)):
                    found += more
                if len(found) > _MAX_ANSWER:
                    raise CallFailed(f"{what}: the answer is longer than {_MAX_ANSWER} bytes")
                if not 200 <= reply.status < 300:
                    text = found[:200].decode("utf-8", "replace").strip()
                    raise CallFailed(f"the server answered {reply.status}{': ' + text if text else ''}")
                return found
        except TimeoutError:
            raise CallFailed(f"{what}: context deadline exceeded") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise CallFailed(f"{what}: tls: failed to verify certificate: {error.certificate_error}") from None
        except aiohttp.ClientConnectorError as error:
            raise _Unreachable(f"{what}: {error.os_error.strerror or error.os_error}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise CallFailed(f"{what}: {error or type(error).__name__}") from None

    def _context(self, bundle: str) -> ssl.SSLContext:
        found = self._contexts.get(bundle)
        if found is None:
            try:
                found = ssl.create_default_context(cadata=bundle or None)
            except (ssl.SSLError, ValueError) as error:
                raise CallFailed(f"unable to load root certificates: {error}") from None
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            self._contexts[bundle] = found
        return found

    async def _endpoints(self, namespace: str, name: str, port: int, shown: str) -> list[tuple[str, int]]:
        """Addresses and ports of what is ready behind a Service's port, in no order."""
        entry = await self._store.get(f"/{SERVICE.resource}/{namespace}/{name}")
        if entry is None:
            raise CallFailed(f'service "{name}" not found')
        spec = self._cache.document(entry).get("spec") or {}
        if spec.get("type") == "ExternalName":
            return [(spec.get("externalName") or "", port)]
        ports = [each for each in spec.get("ports") or () if each.get("port") == port]
        if not ports:
            raise CallFailed(f'no service port {port} found for service "{name}"')
        wanted, found = ports[0].get("name") or "", []
        for each in (await self._store.list(f"/{ENDPOINT_SLICE.resource}/{namespace}/")).entries:
            slice_ = self._cache.document(each)
            if (slice_["metadata"].get("labels") or {}).get("kubernetes.io/service-name") != name:
                continue
            numbers = [
                each["port"]
                for each in slice_.get("ports") or ()
                if (each.get("name") or "") == wanted and each.get("port")
            ]
            for endpoint in slice_.get("endpoints") or ():
                if (endpoint.get("conditions") or {}).get("ready", True) is not False:
                    found += [(address, number) for address in endpoint.get("addresses") or () for number in numbers]
        if not found:
            raise CallFailed(f'Post "{shown}": no endpoints available for service "{name}"')
        random.shuffle(found)
        return found

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Unreachable(CallFailed):
    """Nobody listens there: the next endpoint may be asked."""
