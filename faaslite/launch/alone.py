"""`python -m faaslite.launch.alone DATA_DIR COMPONENT`: one component in the foreground, started by `faas run`.

For those who have a supervisor of their own, such as systemd. Components of one data dir find each other by its sockets and by
the ports that it keeps; `faas up` and components that run alone shut each other out.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.errors import FaasliteError
from faaslite.launch.child import configure_logging
from faaslite.launch.cluster import Cluster, prepare
from faaslite.launch.errors import AlreadyRunning, LaunchError
from faaslite.launch.home import Home
from faaslite.launch.process import ProcessSpec
from faaslite.launch.settings import ClusterSettings

__all__ = ["main"]

_PERIOD, _PATIENCE = 0.1, 300
"""Seconds between looks for the sandboxer, which another supervisor starts when it likes, and how many."""


def main(arguments: Sequence[str]) -> int:
    home, name = Home(Path(arguments[0])), arguments[1]
    configure_logging()
    signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    report = os.open(os.devnull, os.O_WRONLY)
    try:
        home.prepare()
        locks = (_lock(home.lock, fcntl.LOCK_SH, home), _lock(home.run / f"{name}.lock", fcntl.LOCK_EX, home))
        with _one_at_a_time(home):
            settings = ClusterSettings.load(home.settings) or ClusterSettings()
            settings.workers = max(settings.workers, _number(name, "gateway"))
            cluster = prepare(home, settings, parts=_parts(name))
        from faaslite.launch.plan import processes

        try:
            spec = _find(processes(cluster), name)
            _wait_for_sandboxer(cluster, spec)
            spec.main(report)
        finally:
            if "api" in _parts(name):
                cluster.remove_sockets()
        for each in locks:
            os.close(each)
    except FaasliteError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        logging.shutdown()
    return 0


def _parts(name: str) -> frozenset[str]:
    """What the component listens on or holds: see `cluster.prepare`."""
    kind = name.rsplit("-", 1)[0]
    return frozenset({"core": ["api"], "gateway": ["gateway"], "node": ["slices"]}.get(kind, []))


def _number(name: str, kind: str) -> int:
    head, _, number = name.rpartition("-")
    return int(number) if head == kind and number.isdigit() else 1


def _find(table: Sequence[ProcessSpec], name: str) -> ProcessSpec:
    for each in table:
        if each.name == name:
            return each
    raise LaunchError(f"there is no component {name!r}; there are {', '.join(each.name for each in table)}")


def _wait_for_sandboxer(cluster: Cluster, spec: ProcessSpec) -> None:
    """A node's agent has nothing to do without it; everything else is waited for where it is used."""
    if not any(each.startswith("sandboxer-") for each in spec.after):
        return
    path = cluster.home.sandboxer_socket(spec.name)
    for attempt in range(_PATIENCE):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        if attempt == 0:
            logging.getLogger(__name__).info("waiting for the sandboxer at %s", path)
        time.sleep(_PERIOD)


@contextlib.contextmanager
def _one_at_a_time(home: Home) -> Iterator[None]:
    """Components that are started together make what a data dir has, its keys and settings, one after the other."""
    lock = os.open(home.run / "prepare.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _lock(path: Path, kind: int, home: Home) -> int:
    """Held until this process ends."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        what = "faaslite is" if kind == fcntl.LOCK_SH else f"{path.stem} is"
        raise AlreadyRunning(
            f"{what} already up in {home.path}; `faas status` shows it, `faas down` stops it"
        ) from error
    return lock


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
