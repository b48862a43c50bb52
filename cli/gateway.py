"""Plain HTTP to the gateway: calls of functions, and the platform's own paths below `/system/`."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from cli.errors import CallFailed, NotThere, Unreachable

__all__ = ["Gateway"]

ASKED_FOR = 64 << 10
"""Bytes: whether the store has a smaller package costs more to ask than to send it."""
Response = http.client.HTTPResponse
_AS_IT_IS = "%/?&=:@!$'()*+,;~[]"
"""In a path with its query, beside letters and digits; whatever else people type is escaped."""


class Gateway:
    """Where the gateway is, and the token that the platform's own paths ask for; `authority` is the CA of its certificate, where it isn't one
    that this machine knows; `ca` (PEM) one that is trusted beside those."""

    def __init__(
        self, url: str, token: str = "", timeout: float = 330.0, authority: Path | None = None, ca: str = ""
    ) -> None:
        self._authority = authority
        self._ca = ca
        self.url = url.rstrip("/")
        self._token = token
        self._timeout = timeout

    @property
    def credentials(self) -> dict[str, str]:
        """What opens private functions to who has the kubeconfig; functions don't get to see it."""
        return {"X-Faaslite-Token": f"Bearer {self._token}"} if self._token else {}

    def function_url(self, namespace: str, name: str, path: str = "") -> str:
        """Where people call it; the default namespace goes without saying."""
        where = name if namespace == "default" else f"{name}.{namespace}"
        return f"{self.url}/function/{quote(where)}{'/' + quote(path.lstrip('/'), _AS_IT_IS) if path else ''}"

    @contextmanager
    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Iterator[Response]:
        """One exchange; raises Unreachable where nobody answers."""
        parts = urlsplit(self.url)
        host = parts.hostname or "127.0.0.1"
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            trust = ssl.create_default_context(cafile=str(self._authority) if self._authority else None)
            if self._ca:
                trust.load_verify_locations(cadata=self._ca)
            connection = http.client.HTTPSConnection(host, parts.port, timeout=self._timeout, context=trust)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=self._timeout)
        try:
            connection.request(method, path, body=body, headers=dict(headers or {}))
            yield connection.getresponse()
        except ConnectionRefusedError as error:
            raise Unreachable(f"nothing answers at {self.url}; is the platform up? `faas status` shows it") from error
        except TimeoutError as error:
            raise Unreachable(f"{self.url} did not answer within {self._timeout:.0f} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"the gateway at {self.url} ended the connection: {error or type(error).__name__}"
            ) from error
        finally:
            connection.close()

    def system(self, method: str, path: str, *, body: bytes | None = None) -> Any:
        """A request below `/system/`; its JSON, None where it has no body. Raises CallFailed, NotThere."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        with self.request(method, path, body=body, headers=headers) as response:
            data = response.read()
            if response.status >= 400:
                found = NotThere if response.status == 404 else CallFailed
                raise found(_message(data) or f"{method} {path} answered {response.status} {response.reason}")
            return json.loads(data) if data and "json" in (response.getheader("Content-Type") or "") else None

    def has_package(self, digest: str, namespace: str) -> bool:
        """Whether the package store has it, asked as somebody who may read functions of the namespace."""
        try:
            self.system("HEAD", f"/system/packages/{digest}?namespace={quote(namespace)}")
        except NotThere:
            return False
        return True

    def get_package(self, digest: str, namespace: str) -> bytes:
        """An archive of the namespace from the package store. Raises NotThere, CallFailed."""
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        where = f"/system/packages/{digest}?namespace={quote(namespace)}"
        with self.request("GET", where, headers=headers) as response:
            data = response.read()
            if response.status >= 400:
                found = NotThere if response.status == 404 else CallFailed
                raise found(_message(data) or f"the package store answered {response.status}")
            return data

    def put_package(self, digest: str, data: bytes, namespace: str) -> bool:
        """Hand an archive to the package store; False where the namespace has it already."""
        if len(data) > ASKED_FOR and self.has_package(digest, namespace):
            return False
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        path = f"/system/packages/{digest}?namespace={quote(namespace)}"
        with self.request("PUT", path, body=data, headers=headers) as response:
            said = response.read()
            if response.status >= 400:
                raise CallFailed(_message(said) or f"the package store answered {response.status} {response.reason}")
            return response.status == 201


def _message(data: bytes) -> str:
    try:
        found = json.loads(data)
        return str(found.get("message") or found.get("error") or "")
    except (ValueError, AttributeError):
        return data.decode(errors="replace").strip()[:500]
