"""What every shim owes the platform (`runtime-images/PROTOCOL.md`), asked over its socket. A shim is a command in `SHIMS`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httptools
import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = str(Path(httptools.__file__).parent.parent)
PYTHON = {
    "app.py": """
import asyncio, time
def handle(event, context):
    path = event.path
    if path == "/raise":
        raise ValueError("broken on purpose")
    if path == "/none":
        return None
    if path == "/set":
        return {1, 2}
    if path == "/tuple":
        return "made", 201, {"X-Made": "yes"}
    if path == "/stream":
        return (f"part {n};" for n in range(3))
    if path == "/odd-parts":
        return (each for each in [{"no": "part"}])
    if path == "/odd-later":
        return (each for each in ["a", {"no": "part"}])
    if path == "/odd-error":
        class Odd(Exception):
            def __str__(self):
                raise ValueError("no words")
        raise Odd
    if path == "/slow":
        time.sleep(float(event.query["s"]))
        return "late"
    if path == "/print":
        print("from the handler")
        return context.call_id
    return {"method": event.method, "path": path, "query": event.query, "body": event.text, "secret": context.secrets.get("db/password")}
"""
}
NODE = {
    "app.mjs": """
import { setTimeout as sleep } from 'node:timers/promises';
export async function handle(event, context) {
  switch (event.path) {
    case '/raise': throw new RangeError('broken on purpose');
    case '/none': return undefined;
    case '/set': return new Set([1, 2]);
    case '/tuple': return new Response('made', { status: 201, headers: { 'X-Made': 'yes' } });
    case '/stream': return (function* () { for (const n of [0, 1, 2]) yield `part ${n};`; })();
    case '/odd-parts': return (function* () { yield { no: 'part' }; })();
    case '/odd-later': return (function* () { yield 'a'; yield { no: 'part' }; })();
    case '/odd-error': throw Object.defineProperty(new Error(), 'message', { get() { throw new Error('no words'); } });
    case '/slow': await sleep(Number(event.query.s) * 1000); return 'late';
    case '/print': console.log('from the handler'); return context.callId;
  }
  return { method: event.method, path: event.path, query: event.query, body: event.text, secret: context.secrets.get('db/password') };
}
"""
}
SOURCES = {"python": PYTHON, "node": NODE}
RAISED = {"python": "ValueError: broken on purpose", "node": "RangeError: broken on purpose"}
SHIMS = {
    "node": (["node", str(ROOT / "runtime-images" / "node" / "shim" / "main.mjs")], {"PATH": os.environ["PATH"]}),
    "python": (
        [sys.executable, "-P", "-S", "-m", "faaslite_shim"],
        {"PYTHONPATH": str(ROOT / "runtime-images" / "python"), "FAASLITE_SHIM_LIBRARIES": LIBRARIES},
    ),
}


class Shim:
    def __init__(self, command, env, folder: Path, files, **more: str) -> None:
        package = folder / "package"
        package.mkdir()
        for name, text in files.items():
            (package / name).write_text(text)
        (folder / "secrets" / "db").mkdir(parents=True)
        (folder / "secrets" / "db" / "password").write_text("hunter2")
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.termination = folder / "termination"
        reader, writer = os.pipe()
        self._log = (folder / "log").open("w+")
        environment = {
            **env, "FAASLITE_PACKAGE": str(package), "FAASLITE_SECRETS": str(folder / "secrets"), "FAASLITE_TERMINATION_LOG": str(self.termination),
            "LISTEN_FDS": "1", "FAASLITE_READY_FD": "4", "FAASLITE_MAX_BODY": "1000", **more,
        }  # fmt: skip
        script = f'exec 3<&{self.listener.fileno()} 4>&{writer} {writer}>&-; exec "$@"'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", script, "sh", *command],
            env=environment,
            pass_fds=[self.listener.fileno(), writer],
            stdout=self._log,
            stderr=self._log,
        )
        os.close(writer)
        self.announced = os.read(reader, 10)
        os.close(reader)

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def raw(self, data: bytes) -> bytes:
        """Everything that comes back until the shim closes (the last request has to ask for it)."""
        with socket.create_connection(self.address, timeout=5) as connection:
            connection.sendall(data)
            received = b""
            while part := connection.recv(65536):
                received += part
        return received

    def call(
        self, path: str, method: str = "GET", body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        head, _, rest = self.raw("\r\n".join([*lines, "", ""]).encode() + body).partition(b"\r\n\r\n")
        first, *others = head.decode().split("\r\n")
        return int(first.split()[1]), {k.lower(): v for k, v in (each.split(": ", 1) for each in others)}, rest

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()
        self.listener.close()


@pytest.fixture(params=sorted(SHIMS))
def language(request, needs):
    if request.param == "node":
        needs(shutil.which("node"), "node", "apt-get install nodejs")
    return request.param


@pytest.fixture
def start(language, tmp_path):
    command, env = SHIMS[language]
    made: list[Shim] = []

    def make(files=SOURCES[language], **more: str) -> Shim:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Shim(command, env, folder, files, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_call_reaches_the_handler_and_its_reply_goes_back(start):
    shim = start()
    assert shim.announced == b"R"
    status, headers, body = shim.call("/a%20b?x=1", "POST", b"hello")
    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == {
        "method": "POST",
        "path": "/a b",
        "query": {"x": "1"},
        "body": "hello",
        "secret": "hunter2",
    }
    assert shim.call("/none")[0] == 204
    status, headers, body = shim.call("/tuple")
    assert (status, headers["x-made"], body) == (201, "yes", b"made")
    assert shim.call("/_/ready")[0] == shim.call("/_/live")[0] == 204


def test_chunked_bodies_pipelining_head_and_continue(start):
    shim = start()
    request = b"POST /1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    last = b"GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = shim.raw(request + last)
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.index(b'"body":"abcde"') < answer.index(b'"path":"/2"')
    status, headers, body = shim.call("/x", "HEAD")
    assert (status, body) == (200, b"") and int(headers["content-length"]) > 0
    with socket.create_connection(shim.address, timeout=5) as connection:
        connection.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(b"ok")
        assert b'"body":"ok"' in connection.recv(4096)


def test_generators_are_streamed(start):
    _, headers, body = start().call("/stream")
    assert headers["transfer-encoding"] == "chunked"
    assert body == b"7\r\npart 0;\r\n7\r\npart 1;\r\n7\r\npart 2;\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/raise", 500, "HandlerError"),
        ("/set", 500, "InvalidResponse"),
        ("/odd-parts", 500, "InvalidResponse"),
        ("/odd-error", 500, "HandlerError"),
    ],
)
def test_failures_are_json_without_a_traceback(start, language, path, status, reason):
    shim = start()
    got, headers, body = shim.call(path, X_Call_Id="c-7")
    document = json.loads(body)
    assert (got, document["error"], document["callId"], headers["x-call-id"]) == (status, reason, "c-7", "c-7")
    assert b"Traceback" not in body
    if path == "/raise":
        log = shim.log()
        assert f"[call c-7] {RAISED[language]}" in log
        assert all(line.startswith("[call c-7] ") for line in log.splitlines())


def test_what_goes_wrong_in_the_middle_of_a_reply_is_in_the_log(start):
    shim = start()
    whole = b"GET /odd-later HTTP/1.1\r\nHost: x\r\nX-Call-Id: c-8\r\n\r\n"
    answer = shim.raw(whole)
    assert not answer.endswith(b"0\r\n\r\n")  # node's may end before anything of it is out
    assert "[call c-8] " in shim.log() and "yielded" in shim.log()


def test_prints_carry_the_call_id(start):
    shim = start()
    assert shim.call("/print", X_Call_Id="c-9")[2] == b"c-9"
    assert "[call c-9] from the handler\n" in shim.log()


def test_limits_of_body_time_and_syntax(start):
    shim = start()
    assert json.loads(shim.call("/", "POST", b"x" * 1001)[2])["error"] == "PayloadTooLarge"
    status, _, body = shim.call("/slow?s=5", X_Faaslite_Deadline=f"{time.time() + 0.1:.3f}")
    assert (status, json.loads(body)["error"]) == (504, "DeadlineExceeded")
    assert shim.raw(b"what is this\r\n\r\n").startswith(b"HTTP/1.1 400")


def test_over_its_limit_it_refuses_before_the_body_and_keeps_the_connection(start):
    shim = start(FAASLITE_CONCURRENCY="1")
    with (
        socket.create_connection(shim.address, timeout=5) as busy,
        socket.create_connection(shim.address, timeout=5) as other,
    ):
        busy.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n")
        assert busy.recv(100).startswith(b"HTTP/1.1 100")
        other.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        refusal = other.recv(4096)
        assert (
            refusal.startswith(b"HTTP/1.1 503")
            and b"x-faaslite-busy: 1" in refusal.lower()
            and b"connection: close" not in refusal.lower()
        )
        assert shim.call("/_/ready")[0] == 204
        busy.sendall(b"ok")
        assert busy.recv(4096).startswith(b"HTTP/1.1 200")
        other.sendall(b"abcGET /after HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'"path":"/after"' in other.recv(4096)


def test_term_drains(start):
    shim = start()
    with socket.create_connection(shim.address, timeout=5) as slow:
        slow.sendall(b"GET /slow?s=0.3 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert shim.call("/none")[0] == 204  # the slow one is on its way by now
        shim.process.send_signal(signal.SIGTERM)
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()
    assert shim.call("/none")[1]["connection"] == "close"
    assert shim.process.wait(5) == 0


FAILED = {
    "python": [
        ({"app.py": "import no_such_thing"}, "app:handle", "handler app:handle: ModuleNotFoundError: No module named 'no_such_thing' (is it in requirements.txt?)"),
        ({"app.py": "x = 1\ndef handle(:"}, "app:handle", "handler app:handle: SyntaxError: invalid syntax (app.py:2)"),
        ({"app.py": "x = 1"}, "app:handle", "handler app:handle: app.py has no function handle"),
        ({"app.py": "import sys\nsys.exit(3)"}, "app:handle", "handler app:handle: the module called sys.exit(3) while it was imported (app.py:2)"),
        ({"app.py": "1 / 0"}, "", "handler app: ZeroDivisionError: division by zero (app.py:1)"),
        ({"a.py": "", "b.py": ""}, "", "no handler found in the package"),
    ],
    "node": [
        ({"app.mjs": "import 'no-such-thing'"}, "app:handle", "handler app:handle: ModuleNotFound: Cannot find package 'no-such-thing'"),
        ({"app.mjs": "const x = 1\nfunction handle( {"}, "app:handle", "handler app:handle: SyntaxError: Unexpected end of input"),
        ({"app.js": "exports.x = 1"}, "app:handle", "handler app:handle: app.js has no function handle"),
        ({"app.cjs": "\nprocess.exit(3)"}, "app:handle", "handler app:handle: the module called process.exit(3) while it was imported (app.cjs:2)"),
        ({"app.mjs": "null.x"}, "", "handler app: TypeError: Cannot read properties of null (reading 'x') (app.mjs:1)"),
        ({"a.js": "", "b.js": ""}, "", "no handler found in the package"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("number", range(6), ids=["import", "syntax", "attribute", "exit", "raise", "choice"])
def test_a_failed_start_says_why(start, language, number):
    files, handler, text = FAILED[language][number]
    shim = start(files, FAASLITE_HANDLER=handler)
    assert shim.process.wait(10) == 1
    assert shim.announced == b""
    assert shim.termination.read_text().startswith(text)


@pytest.mark.parametrize("language", ["python"], indirect=True)
def test_user_modules_may_be_called_as_ours_are(start):
    files = {
        "core.py": "VALUE = 5",
        "main.py": "import core, sys\ndef handler(event):\n    found = [n for n in ('httptools', 'uvloop', 'msgspec') if any(p.rstrip('/').endswith('site-packages') for p in sys.path)]\n    return {'core': core.VALUE, 'found': found}",
    }
    assert json.loads(start(files).call("/")[2]) == {"core": 5, "found": []}


@pytest.mark.parametrize("language", ["python"], indirect=True)
def test_async_handlers_and_asgi_applications(start):
    asynchronous = start(
        {
            "app.py": "import asyncio\nasync def handle(event, context):\n    await asyncio.sleep(0)\n    return event.headers['X-One']\n"
        }
    )
    assert asynchronous.call("/", X_One="1")[2] == b"1"
    asgi = """
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive(); scope['state']['n'] = 4; await send({'type': 'lifespan.startup.complete'}); await receive()
        await send({'type': 'lifespan.shutdown.complete'}); return
    body = (await receive())['body']
    await send({'type': 'http.response.start', 'status': 202, 'headers': [(b'X-N', str(scope['state']['n']).encode())]})
    await send({'type': 'http.response.body', 'body': body + scope['path'].encode()})
"""
    status, headers, body = start({"app.py": asgi}).call("/p", "POST", b"b")
    assert (status, headers["x-n"], body) == (202, "4", b"b/p")


@pytest.mark.parametrize("language", ["node"], indirect=True)
def test_node_modules_of_both_kinds_and_fetch(start):
    common = {
        "app.js": "const helper = require('./core.js');\nmodule.exports.handler = (event) => helper.value + event.json().n;",
        "core.js": "exports.value = 5;",
    }
    assert start(common).call("/", "POST", b'{"n": 2}')[2] == b"7"
    package = {
        "package.json": '{"type": "module", "main": "server.js"}',
        "other.js": "",
        "server.js": "export default (event) => [event.method];",
    }
    assert start(package).call("/")[2] == b'["GET"]'
    fetching = """
export default {
  async fetch(request, context) {
    const url = new URL(request.url);
    const headers = new Headers({ 'content-type': 'text/x-own' });
    headers.append('set-cookie', 'a=1'); headers.append('set-cookie', 'b=2');
    return new Response(`${request.method} ${url.pathname} ${await request.text()} ${context.callId}`, { status: 202, headers });
  }
}
"""
    shim = start({"index.mjs": fetching})
    answer = shim.raw(b"POST /p HTTP/1.1\r\nHost: x\r\nX-Call-Id: c\r\nContent-Length: 1\r\nConnection: close\r\n\r\nb")
    assert answer.startswith(b"HTTP/1.1 202") and answer.count(b"set-cookie: ") == 2
    assert b"POST /p b c" in answer and b"text/x-own" in answer


STUCK = {
    "app.py": """
import time
def handle(event, context):
    if event.path == "/loop":
        while True:
            pass
    if event.path == "/block":
        time.sleep(60)
    return "fine"
"""
}


@pytest.fixture
def stuck(tmp_path):
    """Python's alone: there handlers run on threads, which nothing can end from outside."""
    shim = Shim(*SHIMS["python"], tmp_path, STUCK, FAASLITE_CONCURRENCY="1", FAASLITE_TIMEOUT="0.3")
    yield shim
    shim.close()


def test_a_loop_is_interrupted_at_the_deadline_and_its_slot_is_free_again(stuck):
    assert stuck.call("/loop")[0] == 504
    deadline = time.monotonic() + 5
    while (status := stuck.call("/x")[0]) == 503 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert status == 200
    assert "Overdue" in stuck.log()


def test_an_instance_whose_slots_are_all_held_past_the_deadline_ends(stuck):
    assert stuck.call("/block")[0] == 504
    assert stuck.process.wait(10) == 75
    assert "1 calls went on past their deadline" in stuck.log()
