"""`python -m faaslite.launch DATA_DIR SETTINGS_JSON [PROGRESS_FD]`: the supervisor of one cluster, started by `faas up`.

Progress goes to the descriptor as JSON lines where one is given (`faas up --detach`), else to standard output as text.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.errors import FaasliteError
from faaslite.launch.cluster import Cluster, prepare
from faaslite.launch.engine import clean, has_image
from faaslite.launch.errors import AlreadyRunning, LaunchError
from faaslite.launch.home import Home
from faaslite.launch.settings import ClusterSettings
from faaslite.launch.supervisor import Supervisor

__all__ = ["main"]

Say = Callable[[dict[str, Any]], None]


def main(arguments: list[str]) -> int:
    home = Home(Path(arguments[0]))
    say = _to_pipe(int(arguments[2])) if len(arguments) > 2 else _to_terminal
    try:
        error = _supervise(home, json.loads(arguments[1]), say)
    except FaasliteError as failed:
        error = str(failed)
    if error:
        say({"error": error})
        return 1
    return 0


def _supervise(home: Home, flags: dict[str, Any], say: Say) -> str:
    """Until it is told to stop; the error that ended it, or ""."""
    home.prepare()
    _refuse_second(home)
    kept = ClusterSettings.load(home.settings)
    settings = ClusterSettings.make(**{**(kept.model_dump() if kept else {}), **flags})
    cluster = prepare(home, settings)
    if cluster.engine is None:
        clean(home)
        home.clear_volumes()  # what a platform left that had no time to end
    elif not has_image(cluster.engine, "faaslite/python"):
        say({"text": "the Docker engine has no image faaslite/python yet: make it with `faas images build`"})
    from faaslite.launch.plan import processes

    about = {
        "api": settings.api_url,
        "gateway": settings.gateway_url,
        "runtime": cluster.runtime,
        "dataDir": str(home.path),
    }
    try:
        return Supervisor(
            home,
            processes(cluster),
            about=about,
            progress=lambda event: _report(event, cluster, say),
            at_end=lambda: _give_back(home, say),
        ).run()
    finally:
        cluster.close_listeners()
        cluster.remove_sockets()


def _give_back(home: Home, say: Say) -> None:
    """What we had on a Docker engine, and what Pods had on ours. What can't be had back now is what `faas down` tries again, and says so."""
    try:
        clean(home)
        home.clear_volumes()
    except LaunchError as error:
        say({"error": str(error)})


def _refuse_second(home: Home) -> None:
    """Say that it is up already, before a port that it holds is called taken."""
    import fcntl

    lock = os.open(home.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyRunning(
            f"faaslite is already up in {home.path}; `faas status` shows it, `faas down` stops it"
        ) from None
    finally:
        os.close(lock)


def _report(event: dict[str, Any], cluster: Cluster, say: Say) -> None:
    if event.get("ready"):
        settings = cluster.settings
        say({"text": f"ready in {event['ms'] / 1000:.1f} s; runtime {cluster.runtime}"})
        say({"text": f"API      {settings.api_url}   export KUBECONFIG={cluster.home.kubeconfig}"})
        say({"text": f"Gateway  {settings.gateway_url}   faas deploy PATH"})
        say({"ready": True})
    elif event["state"] == "ready":
        say({"text": f"{event['process']} is ready ({event['ms']} ms)"})
    elif event["state"] == "died":
        say({"text": f"{event['process']} ended ({event['exit']}), starting it again in {event['retry']:.1f} s"})


def _to_terminal(event: dict[str, Any]) -> None:
    if "text" in event:
        print(event["text"], flush=True)
    elif "error" in event:
        print(f"error: {event['error']}", file=sys.stderr, flush=True)


def _to_pipe(descriptor: int) -> Say:
    """Until the reader goes away: it leaves once it has seen `ready`."""

    def say(event: dict[str, Any]) -> None:
        nonlocal descriptor
        if descriptor < 0:
            return
        try:
            os.write(descriptor, json.dumps(event).encode() + b"\n")
        except BrokenPipeError:
            os.close(descriptor)
            descriptor = -1

    return say


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
