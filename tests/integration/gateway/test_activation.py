"""Calls that wait: the queue, the autoscaler's part, and instances that come and go."""

from __future__ import annotations

import asyncio

import pytest

from faaslite.api.wire import Notice


async def poke(world):
    return await asyncio.wait_for(world.autoscaler.pokes.get(), 5)


async def test_a_call_waits_pokes_and_is_sent_when_an_instance_is_ready(world):
    world.function()
    instance = await world.instance(pod=False)
    await world.autoscaler.start()
    await world.serve()
    assert (await asyncio.wait_for(world.autoscaler.hello.get(), 5)).gateway == "gateway-1"
    peer = await world.peer()
    asked = asyncio.ensure_future(peer.ask("/function/hello", "POST", b"x" * 200_000))
    found = await poke(world)
    assert (found.revision, found.queued) == ("default/hello-00001", 1)
    world.pod(instance, ready=False)
    world.pod(instance)
    answer = await asked
    assert answer.status == 200
    assert int(answer.fields["x-faaslite-cold-start"]) >= 0
    assert instance.requests[0].body == b"x" * 200_000
    assert "x-faaslite-cold-start" not in (await peer.ask()).fields


async def test_a_cold_start_is_measured_by_phase_once_however_many_wait(world):
    world.function()
    instance = await world.instance(pod=False)
    await world.serve()
    revision = world.worker.gateway.router.revisions["default/hello-00001"]
    asked = [asyncio.ensure_future(world.ask()) for _ in range(3)]
    await world.until(lambda: len(revision.waiting) == 3)
    world.pod(instance, ready=False)
    await world.until(lambda: bool(revision.starting))
    began = revision.held
    world.pod(instance)
    assert {each.status for each in await asyncio.gather(*asked)} == {200}
    text = (await world.ask("/metrics")).body.decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("faaslite_function_cold_start"))
    seconds = {}
    for phase in ("scheduling", "starting"):
        labels = f'{{function="hello",namespace="default",phase="{phase}"}}'
        assert values[f"faaslite_function_cold_start_seconds_count{labels}"] == "1"
        seconds[phase] = float(values[f"faaslite_function_cold_start_seconds_sum{labels}"])
    assert seconds["scheduling"] == pytest.approx(revision.seen - began, abs=1e-5)
    assert seconds["starting"] >= 0
    assert values['faaslite_function_cold_starts_total{function="hello",namespace="default"}'] == "3"
    second = await world.instance()
    await world.until(lambda: len(revision.instances) == 2)
    assert second.requests == [] and len(world.worker.gateway.stats.function("default", "hello").phases) == 2
    assert sum(world.worker.gateway.stats.function("default", "hello").phases["starting"].buckets) == 1


async def test_calls_poke_again_when_more_wait_than_is_coming(world):
    world.function(limit=2)
    instance = await world.instance(pod=False)
    await world.autoscaler.start()
    await world.serve(report_period=60)
    await asyncio.wait_for(world.autoscaler.hello.get(), 5)
    asked = []
    queued = []
    revisions = world.worker.gateway.router.revisions
    for count in range(5):
        asked.append(asyncio.ensure_future(world.ask()))
        if count in (0, 2, 4):  # one instance takes two calls
            queued.append((await poke(world)).queued)
        else:
            await world.until(lambda count=count: len(revisions["default/hello-00001"].waiting) > count)
    assert queued == [1, 3, 5]
    assert world.autoscaler.pokes.empty()
    world.pod(instance)
    assert [each.status for each in await asyncio.gather(*asked)] == [200] * 5


async def test_waiting_calls_are_poked_for_with_every_report(world):
    world.function()
    await world.autoscaler.start()
    await world.serve(report_period=0.05)
    asked = asyncio.ensure_future(world.ask())
    for _ in range(3):
        assert (await poke(world)).queued == 1
    world.pod(await world.instance(pod=False))
    assert (await asked).status == 200


async def test_an_autoscaler_that_comes_late_is_told_who_waits(world):
    world.function()
    await world.serve(report_period=60)
    asked = asyncio.ensure_future(world.ask())
    await world.autoscaler.start()
    assert (await poke(world)).queued == 1
    await world.autoscaler.stop()
    await world.autoscaler.start()
    assert (await poke(world)).queued == 1
    world.pod(await world.instance(pod=False))
    assert (await asked).status == 200


async def test_a_notice_fails_waiting_calls_with_its_reason(world):
    world.function()
    await world.autoscaler.start()
    await world.serve()
    asked = asyncio.ensure_future(world.ask())
    await poke(world)
    world.autoscaler.notify(Notice("default/hello-00001", "QuotaExceeded", "the namespace has no memory left"))
    found = await asked
    assert (found.status, found.error["error"]) == (503, "QuotaExceeded")
    assert found.error["message"] == "the namespace has no memory left"
    assert found.fields["retry-after"] == "1"


async def test_a_notice_does_not_fail_calls_that_wait_for_a_slot(world):
    world.function(limit=1)
    instance = await world.instance()
    instance.gate.clear()
    await world.autoscaler.start()
    await world.serve()
    first = asyncio.ensure_future(world.ask())
    await instance.arrived.get()
    second = asyncio.ensure_future(world.ask())
    await poke(world)
    world.autoscaler.notify(Notice("default/hello-00001", "MaximumReached", "the maximum is reached"))
    instance.gate.set()
    assert [(await first).status, (await second).status] == [200, 200]


async def test_the_queue_is_bounded_in_length(world):
    world.function()
    await world.serve(queue_length=2)
    revision = world.worker.gateway.router.revisions["default/hello-00001"]
    waiting = [asyncio.ensure_future(world.ask()) for _ in range(2)]
    await world.until(lambda: len(revision.waiting) == 2)
    found = await world.ask()
    assert (found.status, found.error["error"], found.fields["retry-after"]) == (503, "QueueFull", "1")
    world.pod(await world.instance(pod=False))
    assert [each.status for each in await asyncio.gather(*waiting)] == [200, 200]


async def test_the_queue_is_bounded_in_time(world):
    world.function()
    await world.serve(queue_timeout=0.1)
    peer = await world.peer()
    found = await peer.ask()
    assert (found.status, found.error["error"]) == (503, "ActivationTimeout")
    world.pod(await world.instance(pod=False))
    assert (await peer.ask()).status == 200


async def test_a_deadline_passes_in_the_queue(world):
    world.function(timeout=0.1)
    await world.serve()
    found = await world.ask()
    assert (found.status, found.error["error"]) == (504, "DeadlineExceeded")


async def test_a_client_that_leaves_the_queue_is_not_called_for(world):
    world.function()
    instance = await world.instance(pod=False)
    await world.serve()
    leaver = await world.peer()
    leaver.write(b"GET /function/hello/left HTTP/1.1\r\nHost: a\r\n\r\n")
    stayer = await world.peer()
    asked = asyncio.ensure_future(stayer.ask("/function/hello/stayed"))
    revision = world.worker.gateway.router.revisions["default/hello-00001"]
    await world.until(lambda: len(revision.waiting) == 2)
    await leaver.close()
    await world.until(lambda: len(revision.waiting) == 1)
    world.pod(instance)
    assert (await asked).status == 200
    assert [each.target for each in instance.requests] == ["/stayed"]


async def test_the_limit_of_each_instance_holds_and_the_longest_waiter_goes_first(world):
    world.function(limit=1)
    first, second = await world.instance(), await world.instance()
    first.gate.clear()
    second.gate.clear()
    await world.serve()
    asked = []
    revision = world.worker.gateway.router.revisions["default/hello-00001"]
    for count in range(4):
        asked.append(asyncio.ensure_future(world.ask(f"/function/hello/{count}")))
        await world.until(lambda count=count: revision.load.active > count)
    await first.arrived.get()
    await second.arrived.get()
    assert len(first.requests) == len(second.requests) == 1
    assert len(revision.waiting) == 2
    first.gate.set()
    assert (await asked[2]).status == 200
    assert [each.target for each in first.requests][1] == "/2"
    second.gate.set()
    assert [each.status for each in await asyncio.gather(*asked)] == [200] * 4
    assert revision.load.active == 0
    assert [each.in_flight for each in revision.ready] == [0, 0]


async def test_a_busy_instance_is_left_for_another(world, read):
    async def handler(reader, writer):
        while True:
            await read(reader)
            refused.set()
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nX-Faaslite-Busy: 1\r\nContent-Length: 4\r\n\r\nbusy")

    refused = asyncio.Event()
    world.function()
    await world.instance(handler)
    await world.serve()
    asked = asyncio.ensure_future(world.ask("/function/hello", "POST", b"x" * 1000))
    await asyncio.wait_for(refused.wait(), 5)
    good = await world.instance()
    found = await asked
    assert (found.status, found.body) == (200, b"hello")
    assert good.requests[0].body == b"x" * 1000


async def test_a_call_is_tried_again_on_the_same_instance_once_it_is_no_longer_busy(world, read, make_reply):
    answers = [b"HTTP/1.1 503 Service Unavailable\r\nX-Faaslite-Busy: 1\r\nContent-Length: 0\r\n\r\n"] * 3

    async def handler(reader, writer):
        while True:
            await read(reader)
            writer.write(answers.pop() if answers else make_reply())

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    found = await world.ask()
    assert found.status == 200
    assert "x-faaslite-cold-start" in found.fields
    assert instance.connections == 1


async def test_a_503_of_the_function_itself_is_passed_on(world, read, make_reply):
    async def handler(reader, writer):
        await read(reader)
        writer.write(make_reply(b"mine", "503 Service Unavailable"))

    world.function()
    await world.instance(handler)
    await world.serve()
    found = await world.ask()
    assert (found.status, found.body) == (503, b"mine")


async def test_an_instance_that_refuses_connections_is_left_for_another(world):
    world.function()
    dead = await world.instance()
    await dead.stop()
    good = await world.instance()
    await world.serve()
    peer = await world.peer()
    for _ in range(3):
        found = await peer.ask("/function/hello", "POST", b"body")
        assert (found.status, found.body) == (200, b"hello")
    assert len(good.requests) == 3


async def test_a_refused_call_waits_for_the_next_instance(world):
    world.function()
    dead = await world.instance()
    await dead.stop()
    await world.autoscaler.start()
    await world.serve(aside=60)
    asked = asyncio.ensure_future(world.ask())
    await poke(world)
    await world.instance()
    assert (await asked).status == 200


async def test_an_instance_that_dies_mid_call(world, read):
    async def handler(reader, writer):
        deaths.append(await read(reader))

    deaths = []
    world.function()
    await world.instance(handler)
    await world.instance(handler)
    await world.serve()
    for method in ("GET", "POST"):
        found = await world.ask("/function/hello", method)
        assert (found.status, found.error["error"]) == (502, "InstanceDied")
    assert len(deaths) == 2, "a call that kills its instance was sent to another"


async def test_an_instance_that_dies_within_its_reply_breaks_the_client_off(world, read):
    async def handler(reader, writer):
        await read(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    world.function()
    await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: a\r\n\r\n")
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await peer.reply()
    assert 'namespace="default",code="5xx"} 1' in (await world.ask("/metrics")).body.decode(), (
        "half a reply is no success"
    )


@pytest.mark.parametrize(("method", "status"), [("GET", 200), ("POST", 502)])
async def test_a_kept_connection_that_ends_as_a_call_is_sent(world, read, make_reply, method, status):
    """The instance closes an idle connection at that moment: only what may be done twice is sent again."""

    async def handler(reader, writer):
        await read(reader)
        writer.write(make_reply())
        if instance.connections == 1:
            await read(reader)
        else:
            await reader.read()

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    assert (await peer.ask()).status == 200
    assert (await peer.ask("/function/hello", method)).status == status
    assert instance.connections == (2 if status == 200 else 1)


async def test_a_pod_that_goes_finishes_its_calls_and_gets_no_more(world):
    world.function()
    old = await world.instance()
    old.gate.clear()
    await world.serve()
    asked = asyncio.ensure_future(world.ask("/function/hello/old"))
    await old.arrived.get()
    new = await world.instance()
    world.pod(old, deleted=True)
    await world.settled()
    assert (await world.ask("/function/hello/new")).status == 200
    old.gate.set()
    assert (await asked).status == 200
    assert [each.target for each in old.requests] == ["/old"]
    assert [each.target for each in new.requests] == ["/new"]
    await asyncio.wait_for(old.lost.wait(), 5)


async def test_no_function_and_no_ready_function(world):
    world.function("broken", ready=False, message="the package has no handler")
    await world.serve()
    found = await world.ask("/function/nothing")
    assert (found.status, found.error["error"]) == (404, "FunctionNotFound")
    found = await world.ask("/function/broken")
    assert (found.status, found.error["error"]) == (503, "FunctionNotReady")
    assert found.error["message"] == "the package has no handler"
    world.function("broken")
    await world.instance(revision="broken-00001")
    await world.settled()
    assert (await world.ask("/function/broken")).status == 200
    world.api.remove("functions", "default/broken")
    await world.settled()
    assert (await world.ask("/function/broken")).status == 404


async def test_traffic_is_split_by_percent(world):
    traffic = [
        {"revision": "hello-00001", "percent": 80, "timeout": 30.0},
        {"revision": "hello-00002", "percent": 20, "timeout": 30.0},
        {"revision": "hello-00003", "percent": 0, "timeout": 30.0},
    ]
    world.function(traffic=traffic)
    instances = [await world.instance(revision=f"hello-0000{number}") for number in (1, 2, 3)]
    await world.serve()
    world.worker.gateway.random.seed(1)
    peer = await world.peer()
    for _ in range(300):
        await peer.ask()
    shares = [len(each.requests) for each in instances]
    assert shares[2] == 0 and 30 < shares[1] < 100 and sum(shares) == 300


async def test_loads_are_reported(world):
    world.function()
    instance = await world.instance()
    instance.gate.clear()
    await world.autoscaler.start()
    await world.serve(report_period=0.1)
    await asyncio.wait_for(world.autoscaler.hello.get(), 5)
    asked = [asyncio.ensure_future(world.ask()) for _ in range(3)]
    requests = 0
    while True:
        report = await asyncio.wait_for(world.autoscaler.reports.get(), 5)
        requests += sum(load.requests for load in report.loads)
        if report.loads and report.loads[0].requests == 0:
            break
    assert requests == 3
    (load,) = report.loads
    assert (load.revision, load.queued) == ("default/hello-00001", 0)
    assert load.concurrency == pytest.approx(3.0)
    instance.gate.set()
    await asyncio.gather(*asked)
    while (await asyncio.wait_for(world.autoscaler.reports.get(), 5)).loads:
        pass


async def test_a_call_that_was_refused_goes_before_those_that_came_later(world, read, make_reply):
    busy = asyncio.Event()
    order = []

    async def handler(reader, writer):
        while True:
            request = await read(reader)
            if not busy.is_set():
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\nX-Faaslite-Busy: 1\r\nContent-Length: 0\r\n\r\n")
                busy.set()
                continue
            order.append(request.target)
            writer.write(make_reply())

    world.function(limit=1)
    await world.instance(handler)
    await world.serve(busy_pause=0.2)
    first = asyncio.ensure_future(world.ask("/function/hello/first"))
    revision = world.worker.gateway.router.revisions["default/hello-00001"]
    await world.until(lambda: revision.load.active == 1)
    second = asyncio.ensure_future(world.ask("/function/hello/second"))
    assert [(await first).status, (await second).status] == [200, 200]
    assert order == ["/first", "/second"]
    assert [each.in_flight for each in revision.instances.values()] == [0]


async def test_all_idle_connections_are_given_up_when_one_was_dead(world, read, make_reply):
    """An instance that was restarted: every kept connection is dead, and each would cost an attempt."""
    together = asyncio.Event()

    async def handler(reader, writer):
        number = instance.connections
        await read(reader)
        if number == 5:
            together.set()
        await together.wait()
        writer.write(make_reply())
        if number > 5:
            await reader.read()
        else:
            await read(reader)

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    peers = [await world.peer() for _ in range(5)]
    assert [each.status for each in await asyncio.gather(*(peer.ask() for peer in peers))] == [200] * 5
    assert (await peers[0].ask()).status == 200
    assert instance.connections == 6


async def test_a_slot_that_another_worker_frees_is_taken_at_once(world, read, make_reply):
    """The other worker is played: it is asked, and says so when its call has ended."""
    asked, ended, calls = asyncio.Event(), asyncio.Event(), []

    async def full(reader, writer):
        while True:
            calls.append(await read(reader))
            if ended.is_set():
                writer.write(make_reply(b"mine"))
            else:
                writer.write(make_reply(b"", "503 Service Unavailable", "X-Faaslite-Busy: 1"))

    async def sibling(reader, writer):
        line = (await reader.readuntil(b"\r\n\r\n")).partition(b"\r\n")[0]
        assert line == b"GET /_/freed?default/hello-00001-0 HTTP/1.1"
        asked.set()
        await ended.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    world.function(limit=1)
    await world.instance(full)
    await world.serve(busy_pause=60.0, busy_retry=60.0)
    async with await asyncio.start_unix_server(sibling, world.folder / "gateway-2.sock"):
        peer = await world.peer()
        peer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\n\r\n")
        await asyncio.wait_for(asked.wait(), 5)
        assert len(calls) == 1
        ended.set()
        assert (await peer.reply()).body == b"mine"


async def test_a_worker_says_when_its_call_has_ended(world):
    world.function(limit=1)
    instance = await world.instance()
    instance.gate.clear()
    await world.serve()
    question = b"GET /_/freed?default/hello-00001-0 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

    async def ask():
        reader, writer = await asyncio.open_unix_connection(world.folder / "gateway-1.sock")
        writer.write(question)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer.partition(b"\r\n")[0]

    assert await ask() == b"HTTP/1.1 404 Not Found"
    peer = await world.peer()
    peer.write(b"GET /function/hello HTTP/1.1\r\nHost: h\r\n\r\n")
    await instance.arrived.get()
    waiting = asyncio.ensure_future(ask())
    await world.until(
        lambda: bool(
            world.worker.gateway.router.revisions["default/hello-00001"].instances["default/hello-00001-0"].watchers
        )
    )
    instance.gate.set()
    assert await asyncio.wait_for(waiting, 5) == b"HTTP/1.1 200 OK"
    assert (await peer.reply()).status == 200
    public = await world.ask("/_/freed?default/hello-00001-0")
    assert public.status == 404
