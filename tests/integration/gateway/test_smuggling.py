"""Requests that two parsers may read in two ways, told to the gateway and to nginx before the same instance.

Each case is followed on its connection by a request for `/probe`. What is compared is the first status and which requests the instance got.
Where the verdicts differ the table says why; what must never differ is that no request reaches the instance that wasn't meant as one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket

import pytest

from faaslite.api.names import PORT

HEAD = "POST /function/hello/first HTTP/1.1\r\nHost: h\r\n"
GET = "GET /function/hello/first HTTP/1.1\r\nHost: h\r\n"
CHUNKS = HEAD + "Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = "GET /function/hello/smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
PROBE = "GET /function/hello/probe HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
OK, BAD = "accepted", "refused"

# name, request, the gateway's verdict, nginx' verdict, why they differ
CASES = [
    ("plain length", HEAD + "Content-Length: 3\r\n\r\nabc", OK, OK, ""),
    ("plain chunks", HEAD + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", OK, OK, ""),
    ("chunk extension", HEAD + "Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\n\r\n", OK, OK, ""),
    ("CL.TE", HEAD + f"Content-Length: {5 + len(SMUGGLED)}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED, BAD, BAD, ""),
    ("TE.CL", HEAD + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n5c\r\n" + SMUGGLED + "\r\n0\r\n\r\n", BAD, BAD, ""),
    ("two lengths that differ", HEAD + f"Content-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n" + SMUGGLED, BAD, BAD, ""),
    ("two equal lengths", HEAD + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", BAD, BAD, ""),
    ("list of lengths", HEAD + "Content-Length: 3, 3\r\n\r\nabc", BAD, BAD, ""),
    ("length with a sign", HEAD + "Content-Length: +3\r\n\r\nabc", BAD, BAD, ""),
    ("negative length", HEAD + "Content-Length: -1\r\n\r\n", BAD, BAD, ""),
    ("length in hex", HEAD + "Content-Length: 0x3\r\n\r\nabc", BAD, BAD, ""),
    ("length too large", HEAD + "Content-Length: 99999999999999999999\r\n\r\n", BAD, BAD, ""),
    ("empty length", HEAD + "Content-Length:\r\n\r\n", BAD, BAD, ""),
    ("encoding twice", HEAD + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", BAD, BAD, ""),
    ("unknown encoding", HEAD + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BAD, BAD, ""),
    ("encoding list", HEAD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD, BAD, ""),
    ("space before the colon", HEAD + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", BAD, BAD, ""),
    ("vertical tab in encoding", HEAD + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", BAD, BAD, ""),
    ("folded line", HEAD + "X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n", BAD, BAD, ""),
    ("encoding in 1.0", "POST /function/hello/first HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD, BAD, ""),
    ("no host", "GET /function/hello/first HTTP/1.1\r\n\r\n", BAD, BAD, ""),
    ("two hosts", HEAD + "Host: i\r\nContent-Length: 0\r\n\r\n", BAD, BAD, ""),
    ("null in a value", HEAD + "X-A: a\0b\r\nContent-Length: 0\r\n\r\n", BAD, BAD, ""),
    ("chunk size with 0x", HEAD + "Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", BAD, BAD, ""),
    ("negative chunk size", HEAD + "Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n", BAD, BAD, ""),
    ("chunk longer than said", HEAD + "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", BAD, BAD, ""),
    ("huge chunk size", HEAD + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n", BAD, BAD, ""),
    ("bare LF after chunk size", HEAD + "Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", BAD, OK, "nginx takes a bare LF for a line's end; others behind it may not"),
    ("bare LF in the head", "POST /function/hello/first HTTP/1.1\nHost: h\nContent-Length: 0\n\n", BAD, OK, "as above"),
    ("bare CR in a value", HEAD + "X-A: a\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", BAD, BAD, ""),
    ("space in a field's name", HEAD + "X A: 1\r\nContent-Length: 0\r\n\r\n", BAD, BAD, ""),
    ("other version", "GET /function/hello/first HTTP/1.2\r\nHost: h\r\n\r\n", BAD, OK, "nginx takes any minor version of 1"),
    ("two spaces in the line", "GET  /function/hello/first HTTP/1.1\r\nHost: h\r\n\r\n", BAD, OK, "nginx skips spaces"),
    ("space in the target", "GET /function/hello/first x HTTP/1.1\r\nHost: h\r\n\r\n", BAD, BAD, ""),
    ("host with a comma", "GET /function/hello/first HTTP/1.1\r\nHost: h, i\r\n\r\n", BAD, BAD, ""),
    ("unknown expectation", HEAD + "Expect: 200-ok\r\nContent-Length: 0\r\n\r\n", BAD, OK, "nginx drops what it doesn't know; we say so"),
    ("nominated length", HEAD + f"Connection: Content-Length\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n" + SMUGGLED, OK, OK, ""),
    ("empty line before", "\r\n" + GET + "\r\n", OK, OK, ""),
    ("folded first line", "GET /function/hello/first HTTP/1.1\r\n X: a\r\nHost: h\r\n\r\n", BAD, BAD, ""),
    ("quote in a chunk extension", CHUNKS + '3;a="\r\nabc\r\n0\r\n\r\n', OK, OK, ""),
    ("chunk extension at the end", CHUNKS + "3\r\nabc\r\n0;x=y\r\n\r\n", OK, OK, ""),
    ("space before a chunk size", CHUNKS + " 3\r\nabc\r\n0\r\n\r\n", BAD, BAD, ""),
    ("junk behind a chunk size", CHUNKS + "3x\r\nabc\r\n0\r\n\r\n", BAD, BAD, ""),
    ("negative last chunk", CHUNKS + "-0\r\n\r\n", BAD, BAD, ""),
    ("twenty zeros before a chunk size", CHUNKS + "0" * 20 + "3\r\nabc\r\n0\r\n\r\n", BAD, OK, "nginx reads on; sizes have 15 digits at most here"),
    ("bare LF behind a chunk", CHUNKS + "3\r\nabc\n0\r\n\r\n", BAD, OK, "a bare LF again"),
    ("bare LF behind the last chunk", CHUNKS + "3\r\nabc\r\n0\n\r\n", BAD, OK, "a bare LF again"),
    ("bare LF in a trailer", CHUNKS + "3\r\nabc\r\n0\r\nX: 1\n\r\n", BAD, OK, "a bare LF again"),
    ("length in a trailer", CHUNKS + "3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n", OK, OK, ""),
    ("no chunks but the last", CHUNKS + "0\r\n\r\n", OK, OK, ""),
    ("chunk beyond all limits", CHUNKS + "fffffffffffffff\r\nabc", BAD, BAD, ""),
    ("encoding with a comma", HEAD + "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", BAD, BAD, ""),
    ("chunked twice", HEAD + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", BAD, BAD, ""),
    ("chunked in quotes", HEAD + 'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', BAD, BAD, ""),
    ("identity and a length", HEAD + "Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc", BAD, BAD, ""),
    ("empty encoding", HEAD + "Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc", BAD, BAD, ""),
    ("length with a space within", HEAD + "Content-Length: 3 4\r\n\r\nabc", BAD, BAD, ""),
    ("length with a fraction", HEAD + "Content-Length: 3.0\r\n\r\nabc", BAD, BAD, ""),
    ("length with an underscore", HEAD + f"Content_Length: {len(SMUGGLED)}\r\nContent-Length: 3\r\n\r\nabc", OK, OK, ""),
    ("body with GET", GET + "Content-Length: 3\r\n\r\nabc", OK, OK, ""),
    ("absolute target", "GET http://h/function/hello/first HTTP/1.1\r\nHost: h\r\n\r\n", OK, OK, ""),
    ("absolute target, another host", "GET HTTP://x/function/hello/first HTTP/1.1\r\nHost: h\r\n\r\n", OK, OK, ""),
    ("absolute target without Host", "GET http://h/function/hello/first HTTP/1.1\r\n\r\n", BAD, BAD, ""),
    ("absolute target with a user", "GET http://u@h/function/hello/first HTTP/1.1\r\nHost: h\r\n\r\n", BAD, BAD, ""),
    ("absolute target of another scheme", "GET ftp://h/function/hello/first HTTP/1.1\r\nHost: h\r\n\r\n", BAD, OK, "nginx takes any scheme"),
    ("CONNECT", "CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", BAD, BAD, ""),
    ("CONNECT to a path", "CONNECT /function/hello/first HTTP/1.1\r\nHost: h\r\n\r\n", BAD, BAD, ""),
    ("OPTIONS of everything", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", BAD, BAD, ""),
    ("TRACE", "TRACE /function/hello/first HTTP/1.1\r\nHost: h\r\n\r\n", OK, BAD, "the instance decides what methods it knows"),
    ("keep-alive in 1.0", "GET /function/hello/first HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", OK, OK, ""),
    ("length in 1.0", "POST /function/hello/first HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nabc", OK, OK, ""),
    ("two hosts in 1.0", "GET /function/hello/first HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", BAD, BAD, ""),
    ("HTTP/0.9", "GET /function/hello/first\r\n", BAD, BAD, ""),
    ("HTTP/2 by name", "GET /function/hello/first HTTP/2.0\r\nHost: h\r\n\r\n", BAD, BAD, ""),
    ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD, BAD, ""),
    ("upgrade to h2c", GET + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", OK, OK, ""),
    ("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + "\0" * 60, BAD, BAD, ""),
    ("empty host", "GET /function/hello/first HTTP/1.1\r\nHost:\r\n\r\n", BAD, BAD, ""),
    ("host with a path", "GET /function/hello/first HTTP/1.1\r\nHost: h/x\r\n\r\n", BAD, BAD, ""),
    ("field without a colon", GET + "X\r\n\r\n", BAD, OK, "nginx drops the line"),
    ("control character in a value", GET + "X: a\x01b\r\n\r\n", BAD, OK, "nginx passes it on"),
    ("CR before the line's end", GET + "X: a\r\r\n\r\n", BAD, OK, "nginx drops what follows the first CR"),
    ("CR for line ends", GET.replace("\r\n", "\r") + "\r\r", BAD, BAD, ""),
    ("nominated host", GET + "Connection: Host\r\n\r\n", OK, OK, ""),
    ("method in lower case", "get /function/hello/first HTTP/1.1\r\nHost: h\r\n\r\n", OK, BAD, "methods are tokens of any case; the instance decides"),
]  # fmt: skip


async def verdict(instance, address, request):
    """(accepted or refused, targets that the instance got, all of the answer)."""
    instance.requests.clear()
    reader, writer = await asyncio.open_connection(*address)
    writer.write((request + PROBE).encode("latin-1"))
    try:
        async with asyncio.timeout(5):
            answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    first = re.match(rb"HTTP/1\.[01] (\d{3})", answer)
    good = first is not None and first[1] == b"200"
    return (OK if good else BAD), [each.target for each in instance.requests], answer


@pytest.fixture
async def nginx(tmp_path, needs):
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    needs(program, "nginx", "apt-get install nginx-light")
    found = []

    async def start(host):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        temps = "".join(f"{each}_temp_path temp;" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        user = "user root;" if os.geteuid() == 0 else ""
        (tmp_path / "nginx.conf").write_text(
            f"daemon off; master_process off; pid nginx.pid; error_log error.log; {user} events {{}}\n"
            f"http {{ access_log off; {temps} server {{ listen 127.0.0.1:{port}; location /function/hello/ {{"
            f" proxy_pass http://{host}:{PORT}/; proxy_http_version 1.1; proxy_set_header Connection ''; }} }} }}\n"
        )
        process = await asyncio.create_subprocess_exec(
            program, "-p", str(tmp_path), "-e", "error.log", "-c", "nginx.conf", stderr=asyncio.subprocess.DEVNULL
        )
        found.append(process)
        for _ in range(100):
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
                return ("127.0.0.1", port)
            await asyncio.sleep(0.02)  # it has no other way to say that it listens
        raise AssertionError("nginx doesn't listen")

    yield start
    for process in found:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def test_nothing_is_smuggled_and_the_verdicts_are_nginx_s_or_stricter(world, nginx):
    world.function()
    instance = await world.instance()
    await world.serve()
    address = await nginx(instance.host)
    wrong = []
    for name, request, ours, theirs, why in CASES:
        got, targets, answer = await verdict(instance, world.address, request)
        expected = ["/first", "/probe"] if ours == OK else []
        if (got, targets) != (ours, expected):
            wrong.append(f"{name}: the gateway {got} {targets} {answer[:60]!r}, not {ours} {expected}")
        got, targets, answer = await verdict(instance, address, request)
        if got != theirs:
            wrong.append(f"{name}: nginx {got} {targets} {answer[:60]!r}, not {theirs}")
        assert bool(why) == (ours != theirs), f"{name}: say why the verdicts differ"
    assert not wrong, "\n".join(wrong)
