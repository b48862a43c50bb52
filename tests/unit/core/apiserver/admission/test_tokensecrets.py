"""Who may have a Secret filled with an account's token."""

from __future__ import annotations

from typing import Any

import pytest

from core.api.kinds import SECRET
from core.apiserver.admission import Attributes
from core.apiserver.admission.tokensecrets import TokenSecrets
from core.apiserver.authn import MASTERS, User
from core.apiserver.dispatch import RequestInfo
from core.errors import Forbidden


class Rights:
    """Of the index: who may make tokens of which account."""

    def __init__(self, *allowed: tuple[str, str, str]) -> None:
        self.allowed = set(allowed)

    def allows(self, user: User, info: RequestInfo) -> str:
        assert (info.verb, info.group, info.full_resource) == ("create", "", "serviceaccounts/token")
        return "yes" if (user.name, info.namespace, info.name) in self.allowed else ""


def asked(user: User, type_: str, account: str) -> Attributes:
    metadata: dict[str, Any] = {"name": "s", "annotations": {"kubernetes.io/service-account.name": account}}
    info = RequestInfo("create", "", "", "v1", "secrets", "team")
    return Attributes(user, info, SECRET, {"metadata": metadata, "type": type_})


async def test_only_who_may_make_tokens_of_that_account() -> None:
    plugin = TokenSecrets(Rights(("ann", "team", "robot")))  # type: ignore[arg-type]
    token = "kubernetes.io/service-account-token"
    await plugin.admit(asked(User("ann"), token, "robot"))
    await plugin.admit(asked(User("root", (MASTERS,)), token, "other"))
    await plugin.admit(asked(User("bob"), "Opaque", "robot"))
    for user, account in (("ann", "other"), ("bob", "robot"), ("ann", "")):
        with pytest.raises(Forbidden, match="serviceaccounts/token"):
            await plugin.admit(asked(User(user), token, account))
