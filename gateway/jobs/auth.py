"""Who asks, and may they: TokenReview and SubjectAccessReview by the cluster's API, remembered for some seconds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

from core import clock as clocks
from core.api.kinds import SUBJECT_ACCESS_REVIEW, TOKEN_REVIEW
from core.client.rest import Client
from core.errors import Forbidden, Unauthorized
from faaslite.api.names import FUNCTION
from gateway.withdrawals import token_end

__all__ = ["Access", "Caller"]

REMEMBERED = 10.0
"""Seconds that an answer is used again. A token that is withdrawn by then is forgotten as soon as we hear of it (`forget`)."""
MOST_REMEMBERED = 4096
NODES = "system:nodes"


class Caller(NamedTuple):
    name: str
    groups: tuple[str, ...]
    uid: str = ""


class _Memory:
    """Answers by key, for `REMEMBERED` seconds; the oldest go first where there are too many."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: dict[Any, tuple[float, Any]] = {}

    def get(self, key: object) -> Any:
        found = self._answers.get(key)
        if found is None or found[0] < self._clock():
            return None
        return found[1]

    def keep(self, key: object, answer: object, seconds: float = REMEMBERED) -> None:
        self._answers.pop(key, None)
        while len(self._answers) >= MOST_REMEMBERED:
            del self._answers[next(iter(self._answers))]
        self._answers[key] = (self._clock() + seconds, answer)

    def clear(self) -> None:
        self._answers.clear()


class Access:
    """`clock` gives monotonic seconds."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._client = client
        self._tokens = _Memory(clock)
        self._rights = _Memory(clock)
        self._forgotten = 0

    def forget(self) -> None:
        """Somebody lost a credential or a right, or was given one: ask again, of everybody. Answers under way aren't remembered."""
        self._forgotten += 1
        self._tokens.clear()
        self._rights.clear()

    async def caller(self, authorization: str | None) -> Caller:
        """Whose bearer token this `Authorization` header has. Raises `Unauthorized`, and what the API raises."""
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("a bearer token is needed: Authorization: Bearer TOKEN")
        key = hashlib.sha256(token.encode()).digest()
        found, before = self._tokens.get(key), self._forgotten
        if found is None:
            review = {"apiVersion": TOKEN_REVIEW.api_version, "kind": TOKEN_REVIEW.kind, "spec": {"token": token}}
            status = (await self._client.create(TOKEN_REVIEW, review)).get("status") or {}
            user = status.get("user") or {}
            # An unknown token is remembered too, or a wrong one could be used to flood the API.
            found = False
            if status.get("authenticated"):
                found = Caller(user.get("username", ""), tuple(user.get("groups") or ()), user.get("uid", ""))
            ends = token_end(token)
            seconds = REMEMBERED if ends is None or not found else min(REMEMBERED, ends - clocks.wall())
            if self._forgotten == before:
                self._tokens.keep(key, found, seconds)
        if found is False:
            raise Unauthorized("the bearer token is not valid")
        caller: Caller = found
        return caller

    async def may(self, caller: Caller, verb: str, namespace: str, part: str = "") -> None:
        """Raises `Forbidden` unless `caller` may `verb` functions (or this subresource of them) in `namespace` ("" is every namespace)."""
        key = (caller, verb, namespace, part)
        allowed, before = self._rights.get(key), self._forgotten
        if allowed is None:
            review = {
                "apiVersion": SUBJECT_ACCESS_REVIEW.api_version,
                "kind": SUBJECT_ACCESS_REVIEW.kind,
                "spec": {
                    "user": caller.name,
                    "groups": list(caller.groups),
                    "uid": caller.uid,
                    "resourceAttributes": {
                        "verb": verb, "group": FUNCTION.group, "resource": FUNCTION.plural, "namespace": namespace,
                        **({"subresource": part} if part else {}),
                    },
                },
            }  # fmt: skip
            status = (await self._client.create(SUBJECT_ACCESS_REVIEW, review)).get("status") or {}
            allowed = bool(status.get("allowed"))
            if self._forgotten == before:
                self._rights.keep(key, allowed)
        if not allowed:
            where = f'in the namespace "{namespace}"' if namespace else "in all namespaces"
            raise Forbidden(f'"{caller.name}" may not {verb} functions {where}')

    @staticmethod
    def is_node(caller: Caller) -> bool:
        return NODES in caller.groups
