"""Instances that stall, say garbage, or close early, at every place of a reply: what the client gets, and that nobody else gets any of it."""

from __future__ import annotations

import asyncio
import contextlib
import time

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

# What comes of a reply, and what the instance does then: it closes, closes its half, resets, or says no more.
CUT = {
    "nothing": (b"", "close"),
    "nothing, half closed": (b"", "half"),
    "nothing, reset": (b"", "reset"),
    "half a line": (b"HTTP/1.1 2", "close"),
    "half a head": (OK + b"Content-Le", "close"),
    "half a head, half closed": (OK + b"Content-Le", "half"),
    "half a head, reset": (OK + b"Content-Le", "reset"),
    "a head without its end": (OK + b"Content-Length: 0\r\n", "close"),
    "bare line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", "close"),
    "an interim reply alone": (EARLY, "close"),
    "an interim reply, half closed": (EARLY, "half"),
}
GARBAGE = {
    "null in a value": OK + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
    "bare carriage return": OK + b"X: a\rY: b\r\nContent-Length: 0\r\n\r\n",
    "bare line feed": OK + b"X: a\nContent-Length: 0\r\n\r\n",
    "negative length": OK + b"Content-Length: -1\r\n\r\n",
    "a list of lengths": OK + b"Content-Length: 1, 2\r\n\r\nxx",
    "hexadecimal length": OK + b"Content-Length: 0x1\r\n\r\nx",
    "unknown encoding": OK + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "encoding twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "space before colon": OK + b"Content-Length : 0\r\n\r\n",
    "no colon": OK + b"nothing\r\nContent-Length: 0\r\n\r\n",
    "no name": OK + b": x\r\nContent-Length: 0\r\n\r\n",
    "two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n",
    "zeros": b"\0" * 100_000,
}
STALLS = {
    "nothing": b"",
    "half a head": OK + b"Content-Le",
    "an interim reply": EARLY,
}
# Behind a head that was passed on: the client must see that this is not the whole.
BROKEN = {
    "short of its length": (OK + b"Content-Length: 100\r\n\r\nhalf", "close"),
    "short of its length, half closed": (OK + b"Content-Length: 100\r\n\r\nhalf", "half"),
    "short of its length, reset": (OK + b"Content-Length: 100\r\n\r\nhalf", "reset"),
    "short of its length, stalled": (OK + b"Content-Length: 100\r\n\r\nhalf", "stall"),
    "within a chunk": (CHUNKED + b"64\r\nhalf", "close"),
    "before the last chunk": (CHUNKED + b"4\r\nhalf\r\n", "close"),
    "before the last chunk, half closed": (CHUNKED + b"4\r\nhalf\r\n", "half"),
    "before the last chunk, stalled": (CHUNKED + b"4\r\nhalf\r\n", "stall"),
    "within the trailers": (CHUNKED + b"4\r\nhalf\r\n0\r\nX: 1\r\n", "close"),
    "no size": (CHUNKED + b"4\r\nhalf\r\nhalf\r\n", "stall"),
    "a negative size": (CHUNKED + b"4\r\nhalf\r\n-1\r\nx\r\n0\r\n\r\n", "stall"),
    "a chunk longer than it said": (CHUNKED + b"4\r\nhalf and half\r\n0\r\n\r\n", "stall"),
    "a trailer without colon": (CHUNKED + b"4\r\nhalf\r\n0\r\nnothing\r\n\r\n", "stall"),
}


class Script:
    """Replies as it is told, to `/fine` as one should. What follows `half` waits until `go` is set."""

    def __init__(self, read, make_reply):
        self.read, self.make_reply = read, make_reply
        self.say, self.then = b"", "close"
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, reader, writer):
        while True:
            request = await self.read(reader)
            if request.target == "/fine":
                writer.write(self.make_reply(b"good"))
                continue
            first, half, rest = self.say.partition(b"half")
            writer.write(first + half)
            await self.go.wait()
            writer.write(rest)
            if self.then == "reset":
                writer.transport.abort()
            elif self.then == "half":
                writer.write_eof()
            if self.then in ("half", "stall"):
                await reader.read()
            return


async def serve(world, read, make_reply):
    script = Script(read, make_reply)
    world.function()
    await world.instance(script)
    await world.serve()
    return script


def request(target, *fields):
    lines = "".join(f"{each}\r\n" for each in fields)
    return f"GET /function/hello{target} HTTP/1.1\r\nHost: h\r\n{lines}\r\n".encode()


async def final(peer):
    """The reply, behind interim ones."""
    while (found := await peer.reply()).status < 200:
        pass
    return found


async def nothing_is_left(world):
    revision = world.worker.gateway.router.revisions["default/hello-00001"]
    await world.until(lambda: not revision.load.active and not revision.waiting)
    await world.until(lambda: all(not each.in_flight for each in revision.ready))


async def is_a_502_for_its_client_alone(world, script, replies, error):
    """Each of `replies` (name -> what the instance says, and does then)."""
    other, wrong = await world.peer(), []
    for name, (script.say, script.then) in replies.items():
        peer = await world.peer()
        peer.write(request("/broken") + request("/fine"))
        found, following = await final(peer), await peer.reply()
        if (found.status, found.error["error"], following.body) != (502, error, b"good"):
            wrong.append((name, found.status, found.body, following.status, following.body))
        assert (await other.ask("/function/hello/fine")).body == b"good", name
        await peer.close()
    assert not wrong, wrong
    await nothing_is_left(world)


async def test_a_reply_that_ends_in_its_head_is_a_502_for_its_client_alone(world, read, make_reply):
    await is_a_502_for_its_client_alone(world, await serve(world, read, make_reply), CUT, "InstanceDied")


async def test_garbage_for_a_head_is_a_502_for_its_client_alone(world, read, make_reply):
    stalling = {name: (said, "stall") for name, said in GARBAGE.items()}
    await is_a_502_for_its_client_alone(world, await serve(world, read, make_reply), stalling, "BadReply")


async def test_an_instance_that_stalls_before_its_reply_is_a_504(world, read, make_reply):
    script = await serve(world, read, make_reply)
    other = await world.peer()
    for name, script.say in STALLS.items():
        script.then = "stall"
        peer = await world.peer()
        peer.write(request("/broken", f"X-Faaslite-Deadline: {time.time() + 0.3:.3f}") + request("/fine"))
        assert (await other.ask("/function/hello/fine")).body == b"good", name
        found, following = await final(peer), await peer.reply()
        assert (found.status, found.error["error"], following.body) == (504, "DeadlineExceeded", b"good"), name
        await peer.close()
    await nothing_is_left(world)


async def test_a_reply_that_breaks_in_its_body_breaks_its_client_off_and_nobody_else(world, read, make_reply):
    script = await serve(world, read, make_reply)
    other, wrong = await world.peer(), []
    for name, (script.say, script.then) in BROKEN.items():
        peer = await world.peer()
        deadline = [f"X-Faaslite-Deadline: {time.time() + 2:.3f}"] if "stalled" in name else []
        peer.write(request("/broken", *deadline) + request("/fine"))
        script.go.clear()
        async with asyncio.timeout(10):
            head = await peer.reader.readuntil(b"\r\n\r\n")
            body = await peer.reader.readuntil(b"half")
        script.go.set()
        with contextlib.suppress(ConnectionResetError):
            body += await peer.rest()
        whole = body.endswith(b"\r\n0\r\n\r\n") or len(body) >= 100
        if whole or b"good" in body or not head.startswith(b"HTTP/1.1 200 OK"):
            wrong.append((name, head, body))
        assert (await other.ask("/function/hello/fine")).body == b"good", name
        await peer.close()
    assert not wrong, wrong
    await nothing_is_left(world)


async def test_a_reply_that_is_wrong_in_its_first_bytes_is_a_502(world, read, make_reply):
    """Nothing of it was passed on yet."""
    script = await serve(world, read, make_reply)
    for name, (script.say, script.then) in BROKEN.items():
        if name not in ("no size", "a negative size", "a chunk longer than it said", "a trailer without colon"):
            continue
        peer = await world.peer()
        script.say = script.say.replace(b"half", b"four")  # in one piece
        peer.write(request("/broken") + request("/fine"))
        found, following = await peer.reply(), await peer.reply()
        assert (found.status, found.error["error"], following.body) == (502, "BadReply", b"good"), name
        await peer.close()
    await nothing_is_left(world)


async def test_an_instance_that_closes_its_half_behind_a_reply_is_not_asked_again_there(world, read, make_reply):
    async def handler(reader, writer):
        await read(reader)
        writer.write(make_reply(b"good"))
        writer.write_eof()
        await reader.read()

    world.function()
    instance = await world.instance(handler)
    await world.serve()
    peer = await world.peer()
    for number in range(1, 6):
        assert (await peer.ask("/function/hello", "POST", b"x")).body == b"good"
        assert instance.connections == number
        instance.lost.clear()
        await asyncio.wait_for(instance.lost.wait(), 10)
