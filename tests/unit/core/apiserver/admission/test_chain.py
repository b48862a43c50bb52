"""Each plugin is asked about the kinds that it names and no others, in the chain's order."""

from __future__ import annotations

from typing import Any

from core.api.kinds import CONFIG_MAP, POD, SECRET, SERVICE_ACCOUNT, Kind
from core.apiserver.admission import Admission, Attributes
from core.apiserver.authn import User
from core.apiserver.dispatch import RequestInfo


class Noting:
    def __init__(self, name: str, seen: list[str], verbs: tuple[str, ...], kinds: frozenset[str] | None) -> None:
        self.name, self.seen, self.verbs, self.kinds = name, seen, verbs, kinds

    async def admit(self, attributes: Attributes) -> None:
        self.seen.append(self.name)


async def test_who_is_asked_about_what() -> None:
    seen: list[str] = []
    nothing: Any = None
    chain = Admission(nothing, nothing, nothing)
    chain._plugins = (
        Noting("all", seen, ("create", "delete"), None),
        Noting("pods", seen, ("create",), frozenset(("pods",))),
        Noting("late", seen, ("create",), None),
    )

    async def asked(verb: str, kind: Kind) -> list[str]:
        seen.clear()
        await chain.admit(Attributes(User("u"), RequestInfo(verb, "/"), kind, {}))
        return list(seen)

    for _ in range(2):
        assert await asked("create", POD) == ["all", "pods", "late"]
        assert await asked("create", CONFIG_MAP) == ["all", "late"]
        assert await asked("delete", POD) == ["all"]
        assert await asked("deletecollection", POD) == []


def test_no_plugin_is_left_out_of_what_it_decides() -> None:
    nothing: Any = None
    kinds = {type(each).__name__: each.kinds for each in Admission(nothing, nothing, nothing)._plugins}
    assert (
        kinds.pop("NamespaceLifecycle") is None and kinds.pop("MutatingWebhooks") is None and kinds.pop("Quota") is None
    )
    assert POD.resource in (kinds["LimitRanger"] or ()) and POD.resource in (kinds["PodSecurity"] or ())
    assert SECRET.resource in (kinds["TokenSecrets"] or ())
    assert SERVICE_ACCOUNT.resource in (kinds["NodeRestriction"] or ()), "tokens are subresources of accounts"
    assert all(kinds.values())
