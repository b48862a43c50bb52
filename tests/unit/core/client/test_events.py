from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.api.kinds import EVENT, NODE, POD
from core.api.views import Metadata, Node, Pod
from core.client import events
from core.client.events import Recorder, reference
from core.client.rest import Client
from core.errors import Forbidden, ServiceUnavailable

ABOUT = {"apiVersion": "v1", "kind": "Pod", "name": "a", "namespace": "team", "uid": "u1", "resourceVersion": "7"}


@pytest.fixture
async def recorder(api) -> AsyncIterator[Recorder]:
    found = Recorder(Client(api), "scheduler", "host-1")
    yield found
    await found.stop()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.client.events._RETRY_SECONDS", 0.001)
    monkeypatch.setattr("core.client.events._DELAY", 0.001)


async def posted(recorder: Recorder, api) -> list[dict]:
    """The events in the API once the recorder has nothing to do."""
    async with asyncio.timeout(10):
        while recorder._task is not None:
            await asyncio.wait([recorder._task])
    return [each for key, each in api.objects.items() if key[0].endswith("/events")]


def test_a_reference_names_the_object() -> None:
    pod = Pod(metadata=Metadata(name="a", namespace="team", uid="u1", resource_version="7"))
    assert reference(POD, pod) == ABOUT
    assert reference(NODE, Node(metadata=Metadata(name="n"))) == {"apiVersion": "v1", "kind": "Node", "name": "n"}


async def test_an_event_has_what_kubectl_shows(recorder: Recorder, api) -> None:
    recorder.event(ABOUT, "Normal", "Scheduled", "bound to n1")
    (event,) = await posted(recorder, api)
    assert event["metadata"]["namespace"] == "team"
    assert event["metadata"]["name"].startswith("a.")
    assert event["involvedObject"] == ABOUT
    assert event["source"] == {"component": "scheduler", "host": "host-1"}
    assert (event["type"], event["reason"], event["message"], event["count"]) == (
        "Normal",
        "Scheduled",
        "bound to n1",
        1,
    )
    assert event["firstTimestamp"] == event["lastTimestamp"] != ""


async def test_what_waits_to_be_posted_is_posted_at_the_stop(api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.client.events._DELAY", 3600.0)
    recorder = Recorder(Client(api), "scheduler")
    recorder.event(ABOUT, "Normal", "Scheduled", "bound to n1")
    await asyncio.sleep(0)
    assert not [key for key in api.objects if key[0].endswith("/events")]
    await recorder.stop(grace=10.0)
    assert len([key for key in api.objects if key[0].endswith("/events")]) == 1


async def test_events_of_the_cluster_s_objects_are_in_default(recorder: Recorder, api) -> None:
    recorder.event({"kind": "Node", "name": "n"}, "Normal", "Ready", "")
    (event,) = await posted(recorder, api)
    assert event["metadata"]["namespace"] == "default"


async def test_repeats_become_one_event_with_a_count(recorder: Recorder, api, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    monkeypatch.setattr("core.client.events.wall", lambda: now)
    for _ in range(3):
        recorder.event(ABOUT, "Warning", "BackOff", "again")
    (first,) = await posted(recorder, api)
    now += 60
    for _ in range(2):
        recorder.event(ABOUT, "Warning", "BackOff", "again")
    recorder.event(ABOUT, "Warning", "BackOff", "otherwise")
    same, other = await posted(recorder, api)
    assert (first["count"], same["count"], other["count"]) == (3, 5, 1)
    assert same["metadata"]["name"] == first["metadata"]["name"]
    assert same["firstTimestamp"] == first["firstTimestamp"] != same["lastTimestamp"]


async def test_a_repeat_long_after_is_an_event_of_its_own(recorder: Recorder, api, monkeypatch) -> None:
    now = 50.0
    monkeypatch.setattr("core.client.events.monotonic", lambda: now)
    recorder.event(ABOUT, "Normal", "Pulled", "")
    await posted(recorder, api)
    now += 601
    recorder.event(ABOUT, "Normal", "Pulled", "")
    assert [each["count"] for each in await posted(recorder, api)] == [1, 1]


async def test_an_event_that_expired_on_the_server_is_made_anew(recorder: Recorder, api) -> None:
    recorder.event(ABOUT, "Normal", "Pulled", "")
    (first,) = await posted(recorder, api)
    api.remove(EVENT, first["metadata"]["name"], "team")
    recorder.event(ABOUT, "Normal", "Pulled", "")
    (second,) = await posted(recorder, api)
    assert (second["count"], second["metadata"]["name"] != first["metadata"]["name"]) == (1, True)


async def test_under_pressure_events_are_dropped_and_counted(api, caplog) -> None:
    recorder = Recorder(Client(api), "scheduler", capacity=5)
    for n in range(12):
        recorder.event(ABOUT, "Normal", "Scheduled", str(n))
    assert recorder.dropped == 7
    assert len(await posted(recorder, api)) == 5
    said = [record for record in caplog.records if "events dropped" in record.getMessage()]
    assert len(said) == 3, "1, 2 and 4 dropped are told, not each"
    await recorder.stop()


async def test_it_tries_again_where_no_answer_came_and_gives_up_in_the_end(recorder: Recorder, api) -> None:
    api.failures += [ServiceUnavailable("down")] * 2
    recorder.event(ABOUT, "Normal", "First", "")
    assert len(await posted(recorder, api)) == 1
    api.failures += [ServiceUnavailable("down")] * 3
    recorder.event(ABOUT, "Normal", "Second", "")
    assert len(await posted(recorder, api)) == 1
    assert recorder.dropped == 1


async def test_a_refused_event_is_dropped_and_the_next_is_posted(recorder: Recorder, api) -> None:
    api.failures.append(Forbidden("namespace is being terminated"))
    recorder.event(ABOUT, "Normal", "First", "")
    recorder.event(ABOUT, "Normal", "Second", "")
    assert [each["reason"] for each in await posted(recorder, api)] == ["Second"]
    assert recorder.dropped == 1


async def test_stopping_posts_what_waits_and_ignores_what_follows(api) -> None:
    recorder = Recorder(Client(api), "scheduler")
    for n in range(20):
        recorder.event(ABOUT, "Normal", "Scheduled", str(n))
    await recorder.stop()
    recorder.event(ABOUT, "Normal", "Late", "")
    assert len(await posted(recorder, api)) == 20
    await recorder.stop()


async def test_stopping_doesn_t_wait_for_an_api_that_hangs(api) -> None:
    class Hanging(type(api)):
        async def request(self, *parts, **named):
            await asyncio.Event().wait()

    recorder = Recorder(Client(Hanging()), "scheduler")
    recorder.event(ABOUT, "Normal", "Scheduled", "")
    await recorder.stop(grace=0.01)
    assert recorder._task is None


async def test_the_events_of_a_burst_are_posted_in_batches_with_pauses(api, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    recorder = Recorder(Client(api), component="kubelet")

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(recorder, "_pause", pause)
    for number in range(20):
        recorder.event({"kind": "Pod", "namespace": "default", "name": f"p{number}"}, "Normal", "Started", "")
    assert len(await posted(recorder, api)) == 20
    assert pauses == [0.001] * (1 + events._CROWD) + [0.02, 0.02], "what they tell of comes first"
    await recorder.stop()


async def test_events_wait_for_a_lull_but_not_at_the_stop(
    recorder: Recorder, api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, over = asyncio.Event(), asyncio.Event()

    class Busy:
        async def wait(self) -> None:
            asked.set()
            await over.wait()

    monkeypatch.setattr("core.client.events.LULL", Busy())
    recorder.event(ABOUT, "Normal", "Scheduled", "bound to n1")
    async with asyncio.timeout(10):
        await asked.wait()
        assert not [key for key in api.objects if key[0].endswith("/events")]
        over.set()
        assert len(await posted(recorder, api)) == 1
