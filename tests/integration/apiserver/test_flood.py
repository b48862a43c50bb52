"""A user who floods the API delays nobody else: counted in requests of his that are answered in between, not in milliseconds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics

from tests.integration.apiserver.flooding import BINDING, reply, request, site

CM = "/api/v1/namespaces/default/configmaps"
CONNECTIONS = 120
SEATS = 12
ROUNDS = 25


async def _ask(where, token, *rest):
    reader, writer = await where.connect()
    writer.write(request(token, *rest))
    try:
        return await reply(reader)
    finally:
        writer.close()


class Flood:
    """Connections that ask again at once, whatever they are answered; some of them send ahead."""

    def __init__(self):
        self.answered = 0
        self.refused: dict[str, str] = {}
        self.told = asyncio.Event()
        self.flowing = asyncio.Event()
        self.tasks: list[asyncio.Task] = []

    async def one(self, where, ahead):
        reader, writer = await where.connect()
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                writer.write(request("flood-token") * ahead)
                while True:
                    status, headers, _ = await reply(reader)
                    self.answered += 1
                    if status == 429:
                        self.refused = headers
                        self.told.set()
                    if self.answered >= 3 * CONNECTIONS:
                        self.flowing.set()
                    writer.write(request("flood-token"))
        finally:
            writer.close()

    async def stop(self):
        for each in self.tasks:
            each.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def test_others_do_not_notice(pki):
    async with site(pki, seats=SEATS) as where, asyncio.timeout(100):
        await _ask(
            where,
            "admin-token",
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json.dumps(BINDING).encode(),
        )
        lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        status, _, _ = await _ask(where, "node-token", "POST", lease, b'{"metadata":{"name":"n1"}}')
        assert status == 201
        flood = Flood()
        flood.tasks = [
            asyncio.create_task(flood.one(where, 10 if each % 10 == 0 else 1)) for each in range(CONNECTIONS)
        ]
        reader, writer = await where.connect()
        node_reader, node_writer = await where.connect()
        await flood.flowing.wait()
        level = where.api._flow.seats.levels["global-default"]
        assert level.waiting + where.server._guards.starts.waiting > CONNECTIONS / 3  # it is a flood
        between, beats = [], []
        for number in range(ROUNDS):
            before = flood.answered
            writer.write(request("quiet-token", "POST", CM, b'{"metadata":{"name":"q%d"}}' % number))
            status, _, _ = await reply(reader)
            assert status == 201
            between.append(flood.answered - before)
            before = flood.answered
            node_writer.write(
                request(
                    "node-token",
                    "PATCH",
                    f"{lease}/n1",
                    b'{"spec":{"leaseDurationSeconds":%d}}' % (number + 1),
                    "Content-Type: application/merge-patch+json",
                )
            )
            status, _, _ = await reply(node_reader)
            assert status == 200
            beats.append(flood.answered - before)
        await flood.stop()
        for each in (writer, node_writer):
            each.close()
    # In one queue with everybody's requests, each would have had CONNECTIONS of the flood's before it.
    assert statistics.median(between) <= CONNECTIONS / 4, between
    assert statistics.median(beats) <= CONNECTIONS / 4, beats


async def test_more_than_may_wait_is_refused_with_a_time_to_come_back(pki):
    async with site(pki, seats=SEATS) as where, asyncio.timeout(60):
        spec = {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 5,
                "limitResponse": {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": 2}},
            },
        }
        await _ask(
            where,
            "admin-token",
            "POST",
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            json.dumps(BINDING).encode(),
        )
        api = "/apis/flowcontrol.apiserver.k8s.io/v1"
        put = json.dumps({"spec": spec}).encode()
        status, _, _ = await _ask(
            where,
            "admin-token",
            "PATCH",
            f"{api}/prioritylevelconfigurations/global-default",
            put,
            "Content-Type: application/merge-patch+json",
        )
        assert status == 200
        on_disk = asyncio.Event()

        async def durable(revision: int) -> None:
            await on_disk.wait()

        where.store.durable = durable  # a disk that has stopped: whoever reads waits for what he would be shown
        flood = Flood()
        flood.tasks = [asyncio.create_task(flood.one(where, 1)) for _ in range(60)]
        await flood.told.wait()
        await flood.stop()
        on_disk.set()
    assert flood.refused["retry-after"] == "1"
    assert flood.refused["x-kubernetes-pf-flowschema-uid"] and flood.refused["x-kubernetes-pf-prioritylevel-uid"]
