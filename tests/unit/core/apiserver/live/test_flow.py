"""Priority and fairness at the edge, and its objects: counted, never timed."""

from __future__ import annotations

import asyncio
import json

import pytest

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.apiserver.flow import control
from core.asgi import GONE
from core.errors import ApiError, Invalid
from core.store.memory import MemoryStore

API = "/apis/flowcontrol.apiserver.k8s.io/v1"
CM = "/api/v1/namespaces/default/configmaps"
USERS = {
    "flood": User("flood", ("devs",)),
    "quiet": User("quiet", ("devs",)),
    "node": User("system:node:n1", ("system:nodes",)),
    "root": User("root", ("system:masters",)),
}


class Web:
    """Requests over ASGI, as the HTTP server makes them; `hold` keeps admitted ones from ending."""

    def __init__(self, api, monkeypatch):
        self.api = api
        self.held: list[asyncio.Future] = []
        self.running: list[str] = []
        self.scopes: list[dict] = []

        async def check(user, info):
            self.running.append(user.name)
            held = asyncio.get_running_loop().create_future()
            self.held.append(held)
            await held

        monkeypatch.setattr(api._authorizer, "check", check)
        self.tasks: list[asyncio.Task] = []

    def start(self, token, path=CM, query=b"", method="GET", scope=None):
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        full = {"type": "http", "method": method, "path": path, "query_string": query, "headers": headers} | (
            scope or {}
        )
        self.scopes.append(full)
        task = asyncio.create_task(self._call(full))
        self.tasks.append(task)
        return task

    async def _call(self, scope):
        sent, bodies = [], [b""]

        async def receive():
            if not bodies:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": bodies.pop()}

        async def send(message):
            sent.append(message)

        await self.api(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        body = b"".join(each.get("body", b"") for each in sent[1:])
        return sent[0]["status"], headers, body

    async def settle(self):
        for _ in range(20):
            await asyncio.sleep(0)

    async def release(self, count=10**6):
        while self.held and count:
            self.held.pop(0).set_result(None)
            count -= 1
            await self.settle()


@pytest.fixture
async def small(monkeypatch):
    store = MemoryStore()
    api = ApiServer(store, tokens=USERS, seats=16)
    await api.start()
    web = Web(api, monkeypatch)
    yield web
    await web.release()
    await asyncio.gather(*web.tasks, return_exceptions=True)
    await api.stop()
    await store.close()


async def test_a_flood_waits_and_others_do_not(small):
    flood = [small.start("flood") for _ in range(400)]
    await small.settle()
    running = small.running.count("flood")
    level = small.api._flow.seats.levels["global-default"]
    assert running == level.in_use < 16 and level.waiting == level.limits.per_flow == 300
    refused = [await each for each in flood if each.done()]
    assert len(refused) == 400 - running - 300
    status, headers, body = refused[0]
    told = json.loads(body)
    assert (status, headers["retry-after"], told["reason"]) == (429, "1", "TooManyRequests")
    assert told["message"] == "Too many requests, please try again later."
    # A heartbeat, a health check and an administrator don't wait; nor does another user: the flood hasn't got all seats.
    for token, path in (
        ("node", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"),
        ("", "/healthz"),
        ("root", CM),
    ):
        small.start(token, path)
    small.start("quiet")
    await small.settle()
    assert {"system:node:n1", "system:anonymous", "root"} <= set(small.running)
    assert small.running.count("quiet") == 1 and level.limits.flow_most == running < level.in_use
    await small.release(2)
    assert small.running.count("flood") == running + 2 and level.flows["global-default", "flood"].in_use == running


async def test_replies_name_schema_and_level(small, admin=None):
    task = small.start("quiet", "/version")
    await small.release()
    await small.settle()
    await small.release()
    status, headers, _ = await task
    seen = small.api._flow
    assert status == 200
    assert headers["x-kubernetes-pf-flowschema-uid"] == seen._schemas["global-default"].uid != ""
    assert headers["x-kubernetes-pf-prioritylevel-uid"] == seen._levels["global-default"][0] != ""


async def test_who_goes_while_waiting_leaves_the_queue(small):
    for _ in range(40):
        small.start("flood")
    await small.settle()
    level = small.api._flow.seats.levels["global-default"]
    scope = {}
    task = small.start("flood", scope=scope)
    await small.settle()
    waiting = level.waiting
    small.tasks.remove(task)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert level.waiting == waiting - 1


async def test_a_connection_that_ends_takes_its_waiting_request_along(small):
    for _ in range(40):
        small.start("flood")
    await small.settle()
    waiting = [each for each in small.scopes if GONE in each]
    level = small.api._flow.seats.levels["global-default"]
    assert len(waiting) == level.waiting > 0
    waiting[0][GONE]()
    await small.settle()
    assert level.waiting == len(waiting) - 1


async def test_a_watch_has_a_seat_only_while_it_begins(small):
    level = small.api._flow.seats.levels["global-default"]
    small.start("quiet", query=b"watch=true&timeoutSeconds=100")
    await small.settle()
    assert level.in_use == 1
    await small.release()
    assert level.in_use == 0 and small.api.resources.watching == 1
    assert small.api._flow._watches == {"quiet": 1}
    small.api.resources.stop()
    await small.settle()
    assert small.api._flow._watches == {}


async def test_watches_of_one_user_are_bounded(small, monkeypatch):
    monkeypatch.setattr(control, "WATCHES_PER_USER", 2)
    tasks = [small.start("quiet", query=b"watch=true&timeoutSeconds=100") for _ in range(3)]
    await small.settle()
    status, _, body = await tasks[2]
    assert status == 429 and b"quiet has 2 watches open" in body
    small.start("flood", query=b"watch=true")
    await small.settle()
    await small.release()
    assert small.api._flow._watches == {"quiet": 2, "flood": 1}
    small.api.resources.stop()


async def test_who_waits_too_long_is_refused(small, monkeypatch):
    monkeypatch.setattr(control, "MAX_WAIT", 0.01)
    tasks = [small.start("flood") for _ in range(40)]
    await small.settle()
    level = small.api._flow.seats.levels["global-default"]
    running = level.running
    async with asyncio.timeout(10):
        refused = await asyncio.gather(*tasks[running:])
    assert {status for status, _, _ in refused} == {429} and level.timed_out == 40 - running


async def test_long_lists_take_more_seats(small):
    for index in range(450):
        await small.api.resources._store.create(f"/configmaps/default/c{index:04d}", b"{}", durable=False)
    level = small.api._flow.seats.levels["global-default"]
    small.start("quiet")
    await small.settle()
    assert level.in_use == min(5, level.limits.nominal) > 1


async def test_bodies_together_are_bounded(small, monkeypatch):
    monkeypatch.setattr(control, "BODIES", 1000)

    def slow(parts):
        rest = [{"type": "http.request", "body": b" " * 400, "more_body": True}] * parts

        async def receive():
            if not rest:
                await asyncio.Event().wait()
            return rest.pop()

        return receive

    headers = [(b"authorization", b"Bearer flood")]
    scope = {"type": "http", "method": "POST", "path": CM, "query_string": b"", "headers": headers}
    sent = []

    async def send(message):
        sent.append(message)

    holding = asyncio.create_task(small.api(dict(scope), slow(2), send))
    await small.settle()
    assert small.api._flow.bodies == 800 and not sent
    await small.api(dict(scope), slow(1), send)
    assert sent[0]["status"] == 429 and small.api._flow.bodies == 800
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert small.api._flow.bodies == 0


# The objects


async def test_every_cluster_has_them(admin):
    schemas, levels = await admin.get(f"{API}/flowschemas"), await admin.get(f"{API}/prioritylevelconfigurations")
    assert {"exempt", "probes", "system-node-high", "catch-all"} <= {
        each["metadata"]["name"] for each in schemas["items"]
    }
    assert len(levels["items"]) == 8
    level = next(each for each in levels["items"] if each["metadata"]["name"] == "workload-low")
    assert level["spec"]["limited"]["limitResponse"]["queuing"] == {
        "queues": 128,
        "handSize": 6,
        "queueLengthLimit": 50,
    }


def _schema(name="mine", **spec):
    rule = {
        "subjects": [{"kind": "User", "user": {"name": "ann"}}],
        "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
        ],
    }
    base = {"priorityLevelConfiguration": {"name": "mine"}, "matchingPrecedence": 50, "rules": [rule]}
    return {"metadata": {"name": name}, "spec": {**base, **spec}}


async def test_new_objects_configure_it_and_their_end_too(api, admin):
    from core.apiserver import dispatch

    async def level_of(name):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return api._flow.place(User(name, ("system:authenticated",)), dispatch.parse("GET", CM, {})).level

    assert await level_of("ann") == "global-default"
    await admin.post(f"{API}/flowschemas", _schema())
    assert await level_of("ann") == "global-default"  # its level doesn't exist yet
    spec = {"type": "Limited", "limited": {"nominalConcurrencyShares": 245, "limitResponse": {"type": "Reject"}}}
    await admin.post(f"{API}/prioritylevelconfigurations", {"metadata": {"name": "mine"}, "spec": spec})
    assert await level_of("ann") == "mine" and await level_of("bob") == "global-default"
    assert api._flow.seats.levels["mine"].limits.nominal == 16  # half of all shares
    await admin.delete(f"{API}/flowschemas/mine")
    assert await level_of("ann") == "global-default"
    await admin.delete(f"{API}/prioritylevelconfigurations/mine")
    await level_of("ann")
    assert "mine" not in api._flow.seats.levels
    # Mandatory ones hold though they are deleted.
    await admin.delete(f"{API}/prioritylevelconfigurations/exempt")
    await admin.delete(f"{API}/flowschemas/exempt")
    await level_of("ann")
    assert api._flow.place(USERS["root"], dispatch.parse("GET", CM, {})).level == ""


async def test_defaults(admin):
    made = await admin.post(f"{API}/flowschemas", _schema(matchingPrecedence=0))
    assert made["spec"]["matchingPrecedence"] == 1000 and made["metadata"]["generation"] == 1
    spec = {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}
    level = await admin.post(f"{API}/prioritylevelconfigurations", {"metadata": {"name": "x"}, "spec": spec})
    assert level["spec"]["limited"] == {
        "nominalConcurrencyShares": 30, "lendablePercent": 0,
        "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"matchingPrecedence": 10001}, "spec.matchingPrecedence: Invalid value: 10001: must not be greater than 10000"),
        ({"matchingPrecedence": 1}, "only the schema named 'exempt' may have matchingPrecedence 1"),
        ({"distinguisherMethod": {"type": "ByX"}}, 'Unsupported value: "ByX": supported values: "ByNamespace", "ByUser"'),
        ({"priorityLevelConfiguration": {"name": ""}}, "must reference a priority level"),
        ({"rules": [{"subjects": []}]}, "subjects must contain at least one value"),
        ({"rules": [{"subjects": [{"kind": "User", "user": {"name": "x"}}]}]}, "at least one of resourceRules and nonResourceRules"),
        ({"rules": [{"subjects": [{"kind": "Robot"}], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]}]}, 'Unsupported value: "Robot"'),
        ({"rules": [{"subjects": [{"kind": "Group"}], "nonResourceRules": [{"verbs": ["*", "get"], "nonResourceURLs": ["*"]}]}]}, "if '*' is present, must not specify other verbs"),
    ],
)  # fmt: skip
async def test_schemas_that_are_wrong(admin, change, message):
    with pytest.raises(Invalid) as caught:
        await admin.post(f"{API}/flowschemas", _schema(**change))
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("x", {"type": "Exempt"}, "type must be 'Exempt' if and only if `name` is 'exempt'"),
        ("x", {"type": "Limited"}, "must not be empty when type is Limited"),
        ("x", {"type": "Limited", "limited": {"limitResponse": {"type": "Queue"}}}, "must not be empty if limited.limitResponse.type is Limited"),
        ("x", {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 4, "handSize": 6}}}}, "should not be greater than queues (4)"),
        ("x", {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 4096, "handSize": 32}}}}, "required entropy bits of deckSize 4096 and handSize 32"),
        ("x", {"type": "Limited", "limited": {"lendablePercent": 101, "limitResponse": {"type": "Reject"}}}, "must be between 0 and 100, inclusive"),
    ],
)  # fmt: skip
async def test_levels_that_are_wrong(admin, name, spec, message):
    with pytest.raises(Invalid) as caught:
        await admin.post(f"{API}/prioritylevelconfigurations", {"metadata": {"name": name}, "spec": spec})
    assert message in caught.value.message


async def test_mandatory_specs_are_fixed_and_taken_over_ones_are_left_alone(api, admin):
    from core.apiserver.flow.firsts import ensure_objects

    with pytest.raises(ApiError, match="spec of 'catch-all' must equal the fixed value"):
        await admin.patch(f"{API}/flowschemas/catch-all", {"spec": {"matchingPrecedence": 9}})
    at = f"{API}/prioritylevelconfigurations"
    await admin.patch(f"{at}/system", {"spec": {"limited": {"nominalConcurrencyShares": 1}}})
    mine = {"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}}
    await admin.patch(f"{at}/node-high", {**mine, "spec": {"limited": {"nominalConcurrencyShares": 1}}})
    await ensure_objects(api._served)
    shares = {
        name: (await admin.get(f"{at}/{name}"))["spec"]["limited"]["nominalConcurrencyShares"]
        for name in ("system", "node-high")
    }
    assert shares == {"system": 30, "node-high": 1}
