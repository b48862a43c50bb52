"""The autoscaler with the real API server: its label, its annotation, the scale subresource."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from autoscaler.scaler import Autoscaler
from core.api.kinds import REPLICA_SET
from core.api.views import ReplicaSet
from core.client.informer import Informers
from faaslite.api.names import ANNOTATION_SCALE, LABEL_FUNCTION
from faaslite.api.wire import Hello, Load, Poke, Report, ScalePolicy, encode

TIMEOUT = 10.0


async def test_from_zero_and_back(cluster, tmp_path):
    """A poke makes replicas, calls that end take them away again, and nothing else of the ReplicaSet changes."""
    labels = {LABEL_FUNCTION: "f"}
    policy = msgspec.json.encode(ScalePolicy(limit=2, target=1.4, idle=1.0)).decode()
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    document = {
        "metadata": {"name": "f-00001", "labels": labels, "annotations": {ANNOTATION_SCALE: policy}},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }
    before = await cluster.admin.create(REPLICA_SET, document, "team")
    informers = Informers(cluster.admin)
    scaler = Autoscaler(cluster.admin, informers, tmp_path / "autoscaler.sock")
    changed = asyncio.Event()
    replica_sets = informers.watch(REPLICA_SET, ReplicaSet, labels=LABEL_FUNCTION)
    replica_sets.add_handler(lambda old, new: changed.set())

    async def until(replicas: int) -> None:
        async with asyncio.timeout(TIMEOUT):
            while replica_sets.get("team/f-00001").spec.replicas != replicas:
                changed.clear()
                await changed.wait()

    await informers.start()
    await informers.wait_synced()
    await scaler.start()
    _, writer = await asyncio.open_unix_connection(str(tmp_path / "autoscaler.sock"))
    writer.write(encode(Hello("w1")) + encode(Poke("team/f-00001", 5)))
    await until(3)
    writer.write(encode(Report(1.0, [Load("team/f-00001", 5.0, 5, 0)])) + encode(Report(0.1, [])))
    await until(0)
    reasons = [(each.before, each.after, each.reason) for each in scaler.decisions("team/f-00001")]
    assert reasons[0] == (0, 3, "5 calls wait for an instance")
    assert reasons[-1][1] == 0 and "no calls for" in reasons[-1][2]
    after = await cluster.admin.get(REPLICA_SET, "f-00001", "team")
    assert {**after["spec"], "replicas": 0} == {**before["spec"], "replicas": 0}
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await scaler.stop()
    await informers.stop()
