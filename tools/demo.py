"""The main job, from nothing to nothing: `make demo`.

Starts the platform in a folder of its own on free ports, deploys `examples/hello`, lets it scale to zero, calls it from
there, spreads load over several instances, has cron call it, lets it scale to zero again, and stops everything. Each
step prints what it saw and how long it took. Uses nothing but the `faas` command and HTTP.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FAAS = Path(sys.executable).with_name("faas")
CLIENTS = 24
LOAD_SECONDS = 5.0


class Failed(Exception):
    """A step that did not come true."""


def faas(*arguments: str) -> str:
    """Run the command as a person would; its output."""
    done = subprocess.run([str(FAAS), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"`faas {' '.join(arguments)}` ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def call(url: str, timeout: float = 30.0) -> tuple[dict[str, Any], dict[str, str]]:
    """The reply's JSON and headers."""
    with urllib.request.urlopen(url, timeout=timeout) as reply:  # noqa: S310 - the platform's own address
        return json.load(reply), dict(reply.headers)


def replicas(name: str) -> int:
    found = json.loads(faas("list", "-o", "json"))
    return next(
        int((each.get("status") or {}).get("replicas") or 0) for each in found if each["metadata"]["name"] == name
    )


def until(what: str, holds: Callable[[], bool], seconds: float) -> None:
    """Ask twice a second until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"{what} did not come true within {seconds:.0f} s")
        time.sleep(0.5)


class Demo:
    def __init__(self, runtime: str) -> None:
        self._runtime = runtime
        self._url = ""

    def run(self) -> None:
        for each in (
            self.up, self.deploy, self.to_zero, self.first_call, self.scale_out, self.cron, self.to_zero_again,
        ):  # fmt: skip
            began = time.monotonic()
            said = each()
            print(f"{time.monotonic() - began:7.2f} s  {said}", flush=True)

    def up(self) -> str:
        """The platform is up."""
        faas("up", "--detach", "--api-port", "0", "--gateway-port", "0", "--runtime", self._runtime)
        status = json.loads(faas("status", "-o", "json"))
        if not status["ready"]:
            raise Failed(f"not ready: {status}")
        self._url = f"{status['gateway']}/function/hello"
        nodes = ", ".join(f"{each['name']} ({each['runtime']})" for each in status["nodes"])
        return f"up: {len(status['components'])} processes, nodes: {nodes}"

    def deploy(self) -> str:
        faas("deploy", str(ROOT / "examples" / "hello"))
        faas("scale", "hello", "--idle", "2s")
        return "deployed examples/hello and saw it ready"

    def to_zero(self) -> str:
        until("scaling to zero", lambda: replicas("hello") == 0, 60)
        return "scaled to zero: nobody calls"

    def first_call(self) -> str:
        began = time.perf_counter()
        reply, headers = call(f"{self._url}?name=demo")
        took = (time.perf_counter() - began) * 1000
        if reply["message"] != "Hello, demo!":
            raise Failed(f"unexpected reply {reply}")
        waited = headers.get("X-Faaslite-Cold-Start", headers.get("x-faaslite-cold-start", "?"))
        return f"called from zero: {reply['message']!r} after {took:.1f} ms (waited {waited} ms for an instance)"

    def scale_out(self) -> str:
        stop = time.monotonic() + LOAD_SECONDS

        def client(_: int) -> list[str]:
            seen = []
            while time.monotonic() < stop:
                seen.append(call(f"{self._url}?pause=0.25")[0]["instance"])
            return seen

        with ThreadPoolExecutor(CLIENTS) as pool:
            instances = [each for seen in pool.map(client, range(CLIENTS)) for each in seen]
        spread = {each: instances.count(each) for each in set(instances)}
        if len(spread) < 2:
            raise Failed(f"{len(instances)} calls by {CLIENTS} clients were all answered by {spread}")
        return f"scaled out: {len(instances)} calls by {CLIENTS} clients, answered by {len(spread)} instances"

    def cron(self) -> str:
        faas("deploy", str(ROOT / "examples" / "hello"), "--cron", "@every 2s")

        def fired() -> bool:
            runs = json.loads(faas("cron", "history", "hello", "-o", "json"))
            return sum(each["status"] == "Succeeded" for each in runs) >= 2

        until("two runs by cron", fired, 30)
        return "cron ran it:\n" + "\n".join(f"{'':11}{line}" for line in faas("cron", "history", "hello").splitlines())

    def to_zero_again(self) -> str:
        faas("deploy", str(ROOT / "examples" / "hello"))
        faas("scale", "hello", "--idle", "2s")
        until("scaling to zero", lambda: replicas("hello") == 0, 90)
        return "cron trigger removed, scaled to zero again"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", default="auto", choices=("auto", "process", "docker"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faas-demo-") as home:
        os.environ["FAASLITE_HOME"] = home
        os.environ.pop("FAASLITE_KUBECONFIG", None)
        os.environ.pop("FAASLITE_GATEWAY", None)
        failed = ""
        try:
            Demo(arguments.runtime).run()
        except Failed as error:
            failed = str(error)
            for log in sorted(Path(home, "logs").glob("*.log")):
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                print(f"--- {log.name}\n{tail}", file=sys.stderr)
        began = time.monotonic()
        try:
            faas("down")
            print(f"{time.monotonic() - began:7.2f} s  down: everything stopped")
        except Failed as error:
            failed = failed or str(error)
    if failed:
        print(f"the demo failed: {failed}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
