"""A random sequence of operations leaves the API as it leaves a dictionary."""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from core.apiserver import dispatch
from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.apiserver.request import ApiRequest, Reply
from core.errors import ApiError
from core.store.memory import MemoryStore

Document = dict[str, Any]
MAPS = "/api/v1/namespaces/default/configmaps"
ADMIN = User("admin", ("system:masters",))

names = st.sampled_from(("a", "b", "c"))
data = st.dictionaries(st.sampled_from(("k", "l", "m")), st.sampled_from(("1", "2")), max_size=3)
labels = st.dictionaries(st.sampled_from(("app", "tier")), st.sampled_from(("x", "y")), max_size=2)
patches = st.dictionaries(st.sampled_from(("k", "l", "m")), st.sampled_from(("1", "2", None)), max_size=3)
held = st.booleans()
operations = st.lists(
    st.one_of(
        st.tuples(st.just("create"), names, data, labels, held),
        st.tuples(st.just("update"), names, data, labels, st.sampled_from(("", "current", "stale"))),
        st.tuples(st.just("patch"), names, patches),
        st.tuples(st.just("try"), names, patches),
        st.tuples(st.just("delete"), names),
        st.tuples(st.just("release"), names),
        st.tuples(st.just("delete all"), st.sampled_from(("", "app=x", "tier!=y", "!app"))),
        st.tuples(st.just("list"), st.sampled_from(("", "app=x", "app in (x,y)", "!tier")), st.integers(0, 2)),
    ),
    max_size=25,
)


class Model:
    """What the API is meant to be: objects by name, and a counter."""

    def __init__(self) -> None:
        self.objects: dict[str, Document] = {}

    def matches(self, each: Document, selector: str) -> bool:
        found = each["labels"]
        return {
            "": True,
            "app=x": found.get("app") == "x",
            "tier!=y": found.get("tier") != "y",
            "!app": "app" not in found,
            "!tier": "tier" not in found,
            "app in (x,y)": found.get("app") in ("x", "y"),
        }[selector]

    def step(self, operation: tuple[Any, ...]) -> int | list[str]:
        """The status code, or the names that a list has."""
        match operation:
            case "create", name, data, labels, held:
                if name in self.objects:
                    return 409
                self.objects[name] = {"data": dict(data), "labels": dict(labels), "held": held, "going": False}
                return 201
            case "update", name, data, labels, version:
                if name not in self.objects:
                    return 404
                if version == "stale":
                    return 409
                was = self.objects[name]
                self.objects[name] = {**was, "data": dict(data), "labels": dict(labels)}
                return 200
            case ("patch" | "try") as how, name, patch:
                if name not in self.objects:
                    return 404
                if how == "patch":
                    found = {**self.objects[name]["data"], **patch}
                    self.objects[name]["data"] = {key: value for key, value in found.items() if value is not None}
                return 200
            case "delete", name:
                if name not in self.objects:
                    return 404
                self._delete(name)
                return 200
            case "release", name:
                if name not in self.objects:
                    return 404
                self.objects[name]["held"] = False
                if self.objects[name]["going"]:
                    del self.objects[name]
                return 200
            case "delete all", selector:
                for name in [name for name, each in self.objects.items() if self.matches(each, selector)]:
                    self._delete(name)
                return 200
            case "list", selector, _:
                return sorted(name for name, each in self.objects.items() if self.matches(each, selector))
        raise AssertionError(operation)

    def _delete(self, name: str) -> None:
        if self.objects[name]["held"]:
            self.objects[name]["going"] = True
        else:
            del self.objects[name]


class Real:
    """The same operations as requests."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    async def send(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", **query: str
    ) -> tuple[int, Document]:
        info = dispatch.parse(method, path, query)
        raw = b"" if body is None else json.dumps(body).encode()
        try:
            reply = await self._api.answer(ApiRequest(ADMIN, info, query, raw, kind, user_agent="model"), applied=True)
        except ApiError as error:
            return error.status_code, {}
        assert isinstance(reply, Reply)
        return reply.code, json.loads(reply.body)

    async def step(self, operation: tuple[Any, ...]) -> int | list[str]:
        merge = "application/merge-patch+json"
        match operation:
            case "create", name, data, labels, held:
                metadata = {"name": name, "labels": labels, "finalizers": ["example.dev/hold"] if held else []}
                return (await self.send("POST", MAPS, {"metadata": metadata, "data": data}))[0]
            case "update", name, data, labels, version:
                code, current = await self.send("GET", f"{MAPS}/{name}")
                metadata = {"name": name, "labels": labels}
                if code == 200:
                    metadata["finalizers"] = current["metadata"].get("finalizers", [])
                    revision = int(current["metadata"]["resourceVersion"])
                    if version:
                        metadata["resourceVersion"] = str(revision - (version == "stale"))
                return (await self.send("PUT", f"{MAPS}/{name}", {"metadata": metadata, "data": data}))[0]
            case "patch", name, patch:
                return (await self.send("PATCH", f"{MAPS}/{name}", {"data": patch}, merge))[0]
            case "try", name, patch:
                return (await self.send("PATCH", f"{MAPS}/{name}", {"data": patch}, merge, dryRun="All"))[0]
            case "delete", name:
                return (await self.send("DELETE", f"{MAPS}/{name}"))[0]
            case "release", name:
                return (await self.send("PATCH", f"{MAPS}/{name}", {"metadata": {"finalizers": None}}, merge))[0]
            case "delete all", selector:
                return (await self.send("DELETE", MAPS, labelSelector=selector))[0]
            case "list", selector, limit:
                return await self._list(selector, limit)
        raise AssertionError(operation)

    async def _list(self, selector: str, limit: int) -> list[str]:
        found: list[str] = []
        query = {"labelSelector": selector, "limit": str(limit)}
        while True:
            _, page = await self.send("GET", MAPS, **query)
            found += [each["metadata"]["name"] for each in page["items"]]
            assert not limit or len(page["items"]) <= limit
            if not page["metadata"].get("continue"):
                return found
            query["continue"] = page["metadata"]["continue"]

    async def state(self) -> dict[str, Document]:
        _, page = await self.send("GET", MAPS)
        return {
            each["metadata"]["name"]: {
                "data": each.get("data", {}),
                "labels": each["metadata"].get("labels", {}),
                "held": bool(each["metadata"].get("finalizers")),
                "going": "deletionTimestamp" in each["metadata"],
            }
            for each in page["items"]
        }


@settings(max_examples=150, deadline=None)
@given(operations)
def test_the_api_is_a_dictionary_with_manners(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        store = MemoryStore()
        api = ApiServer(store, tokens={})
        await api.start()
        real, model = Real(api), Model()
        try:
            for step in steps:
                before, revision = copy.deepcopy(model.objects), store.revision
                assert await real.step(step) == model.step(step), step
                assert await real.state() == model.objects, step
                # The counter moves exactly with what there is to see.
                if model.objects == before:
                    assert store.revision == revision, step
                else:
                    assert store.revision > revision, step
        finally:
            await api.stop()
            await store.close()

    asyncio.run(run())
