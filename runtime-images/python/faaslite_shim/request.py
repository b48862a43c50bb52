"""What a handler is given: the event, and its context."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from .settings import Settings

__all__ = ["Context", "Event", "Headers", "Secrets"]


class Headers(dict[str, str]):
    """Header values by name, whatever the case; a header that came twice has its values joined by a comma."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        super().__init__()
        for name, value in raw:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1")
            before = dict.get(self, key)
            dict.__setitem__(self, key, text if before is None else f"{before}, {text}")

    def __getitem__(self, name: str) -> str:
        return super().__getitem__(name.lower())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and super().__contains__(name.lower())

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class Event:
    """A call's request. `query` has the last value of each name; `body` is bytes."""

    __slots__ = ("_headers", "_query", "_raw", "_target", "body", "method")

    def __init__(self, method: str, target: bytes, raw: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.method = method
        self.body = body
        self._target = target
        self._raw = raw
        self._headers: Headers | None = None
        self._query: dict[str, str] | None = None

    @property
    def target(self) -> bytes:
        """Path and query as they came."""
        return self._target

    @property
    def path(self) -> str:
        return unquote(self._target.partition(b"?")[0].decode("latin-1"))

    @property
    def query(self) -> dict[str, str]:
        if self._query is None:
            self._query = dict(parse_qsl(self._target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True))
        return self._query

    @property
    def headers(self) -> Headers:
        if self._headers is None:
            self._headers = Headers(self._raw)
        return self._headers

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; None where it is empty. Raises ValueError."""
        return json.loads(self.body) if self.body else None

    def __repr__(self) -> str:
        return f"<Event {self.method} {self.path}>"


class Secrets(Mapping[str, str]):
    """The function's secrets by `secret/key`, read from their files at each use; a bare key where just one secret has it."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[str]:
        try:
            secrets = sorted(os.listdir(self._folder))
        except (FileNotFoundError, NotADirectoryError):
            return
        for secret in secrets:
            folder = os.path.join(self._folder, secret)
            if not secret.startswith(".") and os.path.isdir(folder):
                yield from (f"{secret}/{key}" for key in sorted(os.listdir(folder)) if not key.startswith("."))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> str:
        matches = [each for each in self if each == name or ("/" not in name and each.endswith(f"/{name}"))]
        if len(matches) != 1:
            raise KeyError(f"{name}: {'no such secret' if not matches else 'in ' + ', '.join(matches)}")
        with open(os.path.join(self._folder, matches[0]), encoding="utf-8") as file:
            return file.read()


class Context:
    """What a handler may know of its call. `deadline` is seconds since the epoch, None where there is none."""

    __slots__ = ("_settings", "call_id", "deadline")
    logger = logging.getLogger("function")

    def __init__(self, settings: Settings, call_id: str, deadline: float | None) -> None:
        self._settings = settings
        self.call_id = call_id
        self.deadline = deadline

    @property
    def function(self) -> str:
        return self._settings.function

    @property
    def namespace(self) -> str:
        return self._settings.namespace

    @property
    def revision(self) -> str:
        return self._settings.revision

    @property
    def secrets(self) -> Secrets:
        return Secrets(self._settings.secrets)

    def remaining(self) -> float | None:
        """Seconds left until the deadline, 0 at least; None where there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.time())
