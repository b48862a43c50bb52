"""An API server alone in a process, over TLS, on the embedded store, with nothing else of the platform: what `benchmarks.api` loads.

`python -m benchmarks.api_server FOLDER`: prints `URL TOKEN NODETOKEN` when it serves, ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
from pathlib import Path

import uvloop

from core.apiserver.app import ApiServer
from core.apiserver.authn import User
from core.collector import Collector
from core.serving import AsgiServer
from core.store.factory import open_store
from faaslite.launch.pki import Pki


async def serve(folder: Path) -> None:
    (folder / "pki").mkdir(mode=0o700)
    pki = Pki(folder / "pki")
    pki.prepare(["127.0.0.1"], ["n1"])
    store = open_store(f"sqlite://{folder}/state.db")
    tokens = {token: User(who["user"], tuple(who["groups"])) for token, who in pki.users(["n1"]).items()}
    api = ApiServer(store, tokens=tokens)
    await api.start()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    server = AsgiServer(api, listener, pki.server_context("apiserver"), client_of=api.client_of)
    await server.start()
    collector = Collector(lambda: api.crowded)
    await collector.start()
    gc.collect()
    gc.freeze()
    print(f"https://127.0.0.1:{listener.getsockname()[1]} {pki.token('admin')} {pki.token('node/n1')}", flush=True)
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    loop.add_reader(0, lambda: os.read(0, 1) or over.done() or over.set_result(None))
    await over
    loop.remove_reader(0)
    await collector.stop()
    await api.stop()
    await server.stop()
    await store.close()


if __name__ == "__main__":
    sys.setswitchinterval(0.0002)  # as in the platform: the store's writer must get its turn
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Path(sys.argv[1])))
