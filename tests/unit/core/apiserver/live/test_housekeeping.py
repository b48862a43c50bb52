"""Old revisions and old Events are forgotten."""

from __future__ import annotations

import pytest

from core.apiserver.housekeeping import EVENT_LIFETIME, Housekeeping
from core.clock import timestamp
from core.errors import Expired

EVENTS = "/api/v1/namespaces/default/events"
NOW = 1_800_000_000.0


async def test_events_last_an_hour(admin, api, store):
    for name, age in (("old", EVENT_LIFETIME + 1), ("new", EVENT_LIFETIME - 1)):
        about = {"kind": "Pod", "name": "p", "namespace": "default"}
        await admin.post(
            EVENTS, {"metadata": {"name": name}, "involvedObject": about, "lastTimestamp": timestamp(NOW - age)}
        )
    await Housekeeping(store, api._served).round(NOW)
    assert [each["metadata"]["name"] for each in (await admin.get(EVENTS))["items"]] == ["new"]


async def test_revisions_older_than_the_round_before_are_compacted(admin, api, store):
    keeper = Housekeeping(store, api._served)
    await admin.post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "a"}})
    await keeper.round(NOW)
    kept = str(store.revision)
    await admin.post("/api/v1/namespaces/default/configmaps", {"metadata": {"name": "b"}})
    await keeper.round(NOW)
    found = await admin.events("/api/v1/namespaces/default/configmaps", 1, resourceVersion=kept)
    assert found[0][1]["metadata"]["name"] == "b"
    with pytest.raises(Expired):
        await admin.events("/api/v1/namespaces/default/configmaps", 1, resourceVersion="1")
