"""Lists: pages of a pinned revision, with continue tokens that hold the revision and the last key.

The token is opaque to clients: base64 of JSON `{"v": 1, "rv": revision, "after": key}`; revision 0 goes on with what is there now.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from core.api.kinds import Kind
from core.apiserver.dispatch import number
from core.apiserver.forms import ListMeta
from core.apiserver.registry.generic import Registry
from core.apiserver.selection import Selection
from core.apiserver.status import forbidden, invalid, invalid_value, not_supported, too_large_version
from core.errors import BadRequest, Expired
from core.store.base import Compacted, Entry, FutureRevision

__all__ = ["ListOptions", "list_options", "list_page", "resource_version"]

_LIST_OPTIONS = Kind("meta.k8s.io", "v1", "ListOptions", "")
_MAX_PAGE = 500
_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, "
    "or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list "
    "- objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list."
)


class ListOptions(NamedTuple):
    """`minimum` is a revision that the list must have reached, `exact` one that it is made at (0: the present)."""

    limit: int = 0
    after: str = ""
    exact: int = 0
    minimum: int = 0


_PRESENT = ListOptions()


class _Token(msgspec.Struct):
    v: int
    rv: int
    after: str


class _Inconsistent(Expired):
    """With a token that goes on from the same key at the present revision."""

    def __init__(self, message: str, token: str) -> None:
        super().__init__(message)
        self._token = token

    def status(self) -> dict[str, Any]:
        return {**super().status(), "metadata": {"continue": self._token}}


def encode_token(revision: int, after: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_Token(1, revision, after))).rstrip(b"=").decode()


def decode_token(text: str, prefix: str) -> tuple[int, str]:
    try:
        token = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Token)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise BadRequest(f"continue key is not valid: {error}") from None
    if token.v != 1 or token.rv < 0 or not token.after.startswith(prefix):
        raise BadRequest("continue key is not valid: it is of another list")
    return token.rv, token.after


def resource_version(text: str, kind: Kind = _LIST_OPTIONS) -> int:
    """-1 where it is not set. Raises `Invalid`."""
    if not text:
        return -1
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        why = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise invalid(kind, "", [invalid_value("resourceVersion", text, why)])
    return int(text)


def list_options(query: Mapping[str, str], prefix: str) -> ListOptions:
    """Raises `BadRequest`, `Invalid`."""
    limit = max(number(query, "limit") or 0, 0)
    number(query, "timeoutSeconds")  # of watches; a list that has a bad one is refused all the same
    version, match = resource_version(query.get("resourceVersion", "")), query.get("resourceVersionMatch", "")
    token = query.get("continue", "")
    causes = []
    if "sendInitialEvents" in query:
        causes.append(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    if match:
        if version < 0:
            causes.append(
                forbidden(
                    "resourceVersionMatch", "resourceVersionMatch is forbidden unless resourceVersion is provided"
                )
            )
        if token:
            causes.append(
                forbidden("resourceVersionMatch", "resourceVersionMatch is forbidden when continue is provided")
            )
        if match not in ("Exact", "NotOlderThan"):
            causes.append(not_supported("resourceVersionMatch", match, ["Exact", "NotOlderThan", ""]))
        elif match == "Exact" and version == 0:
            causes.append(
                forbidden("resourceVersionMatch", 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"')
            )
    if causes:
        raise invalid(_LIST_OPTIONS, "", causes)
    if token:
        if version > 0:
            raise BadRequest("specifying resource version is not allowed when using continue")
        exact, after = decode_token(token, prefix)
        return ListOptions(limit, after, exact)
    if version > 0 and (match == "Exact" or (not match and limit)):
        return ListOptions(limit, "", version)
    return ListOptions(limit, "", 0, max(version, 0))


async def list_page(
    registry: Registry, namespace: str, selection: Selection, options: ListOptions
) -> tuple[list[Entry], ListMeta]:
    """One page. Raises `Expired`, `Timeout` (a revision that isn't reached)."""
    store, prefix = registry.store, registry.prefix(namespace)
    if options.minimum > store.revision:
        raise too_large_version(options.minimum, store.revision)
    if selection.name and (namespace or not registry.kind.namespaced) and options == _PRESENT:
        return await _named(registry, namespace, selection)
    try:
        if selection.everything or not options.limit:
            page = await store.list(prefix, limit=options.limit, after=options.after, revision=options.exact)
            found = page.entries if selection.everything else [each for each in page.entries if selection.matches(each)]
            if not page.more:
                return found, ListMeta(page.revision)
            return found, ListMeta(page.revision, encode_token(page.revision, page.entries[-1].key), page.remaining)
        return await _selected_page(registry, prefix, selection, options)
    except FutureRevision as error:
        raise too_large_version(options.exact, error.current) from None
    except Compacted:
        if options.after:
            raise _Inconsistent(_TOO_OLD, encode_token(0, options.after)) from None
        raise Expired(f"The provided resource version is too old: {options.exact}") from None


async def _named(registry: Registry, namespace: str, selection: Selection) -> tuple[list[Entry], ListMeta]:
    """The list of one object, as those ask for it who watch a single one: however many there are beside it."""
    revision = registry.store.revision  # before the object: a watch from there misses nothing of it
    entry = await registry.store.get(registry.key(namespace, selection.name))
    if entry is None or not selection.matches(entry):
        return [], ListMeta(revision)
    return [entry], ListMeta(max(revision, entry.revision))


async def _selected_page(
    registry: Registry, prefix: str, selection: Selection, options: ListOptions
) -> tuple[list[Entry], ListMeta]:
    """With selectors, a page is filled from as many of the store's as it takes; how many remain isn't known then."""
    found: list[Entry] = []
    after, revision = options.after, options.exact
    while True:
        page = await registry.store.list(prefix, limit=_MAX_PAGE, after=after, revision=revision)
        revision = page.revision
        for index, entry in enumerate(page.entries):
            if selection.matches(entry):
                found.append(entry)
                if len(found) == options.limit:
                    more = page.more or index + 1 < len(page.entries)
                    return found, ListMeta(revision, encode_token(revision, entry.key) if more else "")
        if not page.more:
            return found, ListMeta(revision)
        after = page.entries[-1].key
