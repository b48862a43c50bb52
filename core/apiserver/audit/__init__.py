"""Who did what: the trail of each request, from its arrival to its answer, as the audit policy wants it.

It must not decide anything about a request, nor keep it waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from core.apiserver.audit.events import Record
from core.apiserver.audit.log import AuditLog
from core.apiserver.audit.policy import Level, Policy, Rule, capped
from core.apiserver.authn import ANONYMOUS
from core.apiserver.authn.users import User
from core.apiserver.dispatch import RequestInfo
from core.apiserver.http import Head
from core.clock import wall

__all__ = ["SILENT", "Audit", "Trail"]

Scope = dict[str, Any]
RECEIVED, STARTED, COMPLETE = "RequestReceived", "ResponseStarted", "ResponseComplete"


class Trail:
    """One request. What is found out about it is told here as it is found; the last call is `done`."""

    __slots__ = (
        "_audit",
        "_body",
        "_head",
        "_impersonated",
        "_info",
        "_notes",
        "_number",
        "_reason",
        "_received",
        "_scope",
        "_user",
    )

    def __init__(self, audit: Audit, scope: Scope, head: Head, info: RequestInfo, received: float) -> None:
        self._audit = audit
        self._scope, self._head, self._info, self._received = scope, head, info, received
        self._user: User | None = None
        self._impersonated: User | None = None
        self._reason: str | None = None
        self._body = b""
        self._notes: Mapping[str, str] = {}
        self._number = 0

    def by(self, user: User) -> None:
        """Who it is; before anything is decided."""
        self._user = user
        if self._audit.early:
            self._add(RECEIVED, 0)

    def acting_as(self, user: User) -> None:
        self._impersonated = user

    def allowed(self, reason: str) -> None:
        self._reason = reason

    def body(self, data: bytes) -> None:
        self._body = data

    def noted(self, notes: Mapping[str, str]) -> None:
        """Annotations, which may still be added to until `done`."""
        self._notes = notes

    def started(self, code: int) -> None:
        """An answer without a foreseeable end has begun."""
        self._add(STARTED, code)

    def done(self, code: int, response: bytes = b"") -> None:
        self._add(COMPLETE, code, response)

    def _add(self, stage: str, code: int, response: bytes = b"") -> None:
        policy, user, info = self._audit.policy, self._user, self._info
        rule: Rule = policy.rule(user or ANONYMOUS, info)
        wanted = rule.level
        if code in (401, 403) and wanted < policy.denied:
            wanted = policy.denied
        if wanted > Level.METADATA:
            wanted = capped(wanted, info)
        if wanted is Level.NONE or stage in rule.omit:
            return
        if not self._number:
            self._audit.count += 1
            self._number = self._audit.count
        decision = "allow" if self._reason is not None else "forbid" if code == 403 else ""
        self._audit.log.add(
            Record(
                wanted, stage, self._number, self._received, wall(), user, self._impersonated, info, self._scope,
                self._head.user_agent, code, decision, self._reason or "",
                self._body if wanted > Level.METADATA else b"", self._head.content_type,
                response if code >= 400 or wanted is Level.REQUEST_RESPONSE else b"", rule.no_managed_fields,
                self._notes,
            )
        )  # fmt: skip


class _Silent(Trail):
    """Where nothing is written."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def by(self, user: User) -> None:
        pass

    def acting_as(self, user: User) -> None:
        pass

    def noted(self, notes: Mapping[str, str]) -> None:
        pass

    def allowed(self, reason: str) -> None:
        pass

    def body(self, data: bytes) -> None:
        pass

    def started(self, code: int) -> None:
        pass

    def done(self, code: int, response: bytes = b"") -> None:
        pass


SILENT = _Silent()
_NO_HEAD = Head({}, "", "", "", False)


class Audit:
    """A component: the policy and the log that is written by it. `log` None writes nothing."""

    def __init__(self, policy: Policy, log: AuditLog | None, clock: Callable[[], float] = wall) -> None:
        self.policy = policy
        self.early = policy.early
        self.count = 0
        self._log = None if policy.silent else log
        self._clock = clock

    @classmethod
    def off(cls) -> Audit:
        return cls(Policy(), None)

    @property
    def log(self) -> AuditLog:
        assert self._log is not None
        return self._log

    async def start(self) -> None:
        """Raises OSError where the log can't be written."""
        if self._log is not None:
            self._log.start()

    async def stop(self) -> None:
        if self._log is not None:
            await self._log.stop()

    def begin(self, scope: Scope, head: Head, info: RequestInfo) -> Trail:
        return SILENT if self._log is None else Trail(self, scope, head, info, self._clock())

    def local(self, user: User, info: RequestInfo, data: bytes) -> Trail:
        """Of a request by a component of the server's own process."""
        if self._log is None or (not self.policy.denied and not self.policy.rule(user, info).level):
            return SILENT
        trail = Trail(self, {"path": info.path, "query_string": b""}, _NO_HEAD, info, self._clock())
        trail.body(data)
        trail.by(user)
        return trail
