"""A request on its way through the server, and what comes back: the same for HTTP and for the in-process transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple

from core.api.kinds import Kind
from core.apiserver.authn import User
from core.apiserver.dispatch import RequestInfo, number, truth
from core.apiserver.forms import Form
from core.apiserver.managedfields import manager_name
from core.apiserver.registry.generic import Registry
from core.apiserver.status import forbidden, invalid, invalid_value, not_supported, required
from core.apiserver.watch import Watcher
from core.serving import Take

__all__ = [
    "APPLY_OPTIONS", "ApiRequest", "Headers", "Proxied", "RawRequest", "Reply", "TextStream", "Upgrade", "WatchStream", "WriteOptions",
    "boolean", "number", "write_options",
]  # fmt: skip

JSON = "application/json"
Headers = list[tuple[bytes, bytes]]


class Upgrade(NamedTuple):
    """A request for another protocol: its query and headers as they came, and how to take its connection."""

    method: str
    query: str
    headers: Sequence[tuple[bytes, bytes]]
    take: Take


class ApiRequest:
    """What was asked and by whom. `warnings` collects the texts of `Warning: 299` headers, `doubts` what the decoder found doubtful, `annotations`
    what webhooks want to have noted. `user_agent` is None within the server's process."""

    __slots__ = (
        "accept", "annotations", "body", "content_type", "doubts", "info", "query", "raw", "upgrade", "user", "user_agent", "warnings",
    )  # fmt: skip

    def __init__(
        self,
        user: User,
        info: RequestInfo,
        query: Mapping[str, str],
        body: bytes = b"",
        content_type: str = JSON,
        accept: str = "",
        user_agent: str | None = None,
    ) -> None:
        self.user = user
        self.info = info
        self.query = query
        self.body = body
        self.content_type = content_type
        self.accept = accept
        self.user_agent = user_agent
        self.upgrade: Upgrade | None = None
        self.warnings: list[str] = []
        self.doubts: list[str] = []
        self.raw: RawRequest | None = None
        self.annotations: dict[str, str] = {}

    @property
    def manager(self) -> str:
        """The field manager that a write is put down to."""
        own = self.user.name.rpartition(":")[2] if self.user_agent is None else self.user_agent
        return manager_name(self.query.get("fieldManager", ""), own)


class RawRequest(NamedTuple):
    """A request as it came over HTTP, `path` and `query` still encoded: what is passed on needs them."""

    method: str
    path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]


class Reply(NamedTuple):
    """A whole answer. Over HTTP it leaves once `revision` is durable (0: nothing to wait for)."""

    body: bytes
    revision: int = 0
    code: int = 200
    content_type: str = JSON


class WatchStream(NamedTuple):
    """A watch, to be written in `form`."""

    watcher: Watcher
    form: Form
    registry: Registry


class TextStream(NamedTuple):
    """Bytes as they come: the log of a container."""

    chunks: AsyncGenerator[bytes, None]
    content_type: str = "text/plain"


class Proxied(NamedTuple):
    """The answer of somebody else, to be passed on."""

    status: int
    headers: Headers
    chunks: AsyncGenerator[bytes, None]


class WriteOptions(NamedTuple):
    dry_run: bool = False
    strict: bool = False
    warn: bool = True
    force: bool = False


DEFAULT_OPTIONS = WriteOptions()
APPLY_OPTIONS = "ApplyOptions"


def write_options(query: Mapping[str, str], kind: str = "CreateOptions") -> WriteOptions:
    """Of a create, update or patch; an `ApplyOptions` is a patch that applies. Raises `Invalid` for values that nobody knows."""
    applies = kind == APPLY_OPTIONS
    if not query and not applies:
        return DEFAULT_OPTIONS
    validation = query.get("fieldValidation", "") or "Warn"
    dry_run = query.get("dryRun", "")
    causes = []
    if dry_run not in ("", "All"):
        causes.append(not_supported("dryRun", dry_run, ["All"]))
    if validation not in ("Strict", "Warn", "Ignore"):
        causes.append(not_supported("fieldValidation", validation, ["Ignore", "Strict", "Warn"]))
    if len(query.get("fieldManager", "")) > 128:
        causes.append(forbidden("fieldManager", "may not be more than 128 bytes"))
    if applies and not query.get("fieldManager"):
        causes.append(required("fieldManager", "is required for apply patch"))
    if not applies and kind == "PatchOptions" and "force" in query:
        causes.append(forbidden("force", "may not be specified for non-apply patch"))
    if not all(each.isprintable() for each in query.get("fieldManager", "")):
        causes.append(invalid_value("fieldManager", query["fieldManager"], "should only contain printable characters"))
    if causes:
        raise invalid(Kind("meta.k8s.io", "v1", "PatchOptions" if applies else kind, ""), "", causes)
    return WriteOptions(dry_run == "All", validation == "Strict", validation == "Warn", boolean(query, "force"))


def boolean(query: Mapping[str, str], name: str) -> bool:
    return name in query and truth(query[name])
