"""Acting as somebody else: the `Impersonate-*` headers, and what whoever sends them must be allowed for that.

After https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from urllib.parse import unquote

from core.apiserver.authn import AUTHENTICATED, UNAUTHENTICATED, User
from core.apiserver.dispatch import RequestInfo
from core.errors import BadRequest

__all__ = ["permissions", "requested"]

_SERVICE_ACCOUNT = "system:serviceaccount:"
_EXTRA = "impersonate-extra-"


def requested(headers: Iterable[tuple[str, str]]) -> User | None:
    """The user that headers (lower-case names) ask to be, None without such headers. Raises `BadRequest` for others without a user."""
    name = uid = ""
    groups: list[str] = []
    extra: dict[str, tuple[str, ...]] = {}
    found = False
    for header, value in headers:
        found = True
        if header == "impersonate-user":
            name = value
        elif header == "impersonate-group":
            groups.append(value)
        elif header == "impersonate-uid":
            uid = value
        elif header.startswith(_EXTRA):
            key = unquote(header.removeprefix(_EXTRA))
            extra[key] = (*extra.get(key, ()), value)
    if not found:
        return None
    if not name:
        raise BadRequest("requested groups, uid or extra without impersonating a user")
    account = _account(name)
    if account is not None and not groups:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{account[0]}"]
    everybody = UNAUTHENTICATED if name == "system:anonymous" else AUTHENTICATED
    if everybody not in groups:
        groups.append(everybody)
    return User(name, tuple(groups), uid, extra)


def permissions(user: User) -> Iterator[RequestInfo]:
    """Everything that one must be allowed to do to be that user."""
    account = _account(user.name)
    if account is not None:
        yield RequestInfo("impersonate", "", "", "v1", "serviceaccounts", account[0], account[1])
    else:
        yield RequestInfo("impersonate", "", "", "v1", "users", "", user.name)
    given = {AUTHENTICATED, UNAUTHENTICATED}
    if account is not None:
        given |= {"system:serviceaccounts", f"system:serviceaccounts:{account[0]}"}
    for group in user.groups:
        if group not in given:
            yield RequestInfo("impersonate", "", "", "v1", "groups", "", group)
    if user.uid:
        yield RequestInfo("impersonate", "", "authentication.k8s.io", "v1", "uids", "", user.uid)
    for key, values in user.extra.items():
        for value in values:
            yield RequestInfo("impersonate", "", "authentication.k8s.io", "v1", "userextras", "", value, key)


def _account(name: str) -> tuple[str, str] | None:
    """(namespace, name) of a ServiceAccount's user name."""
    if not name.startswith(_SERVICE_ACCOUNT):
        return None
    namespace, separator, account = name.removeprefix(_SERVICE_ACCOUNT).partition(":")
    return (namespace, account) if separator and namespace and account else None
