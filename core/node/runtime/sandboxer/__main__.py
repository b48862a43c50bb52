"""`python -m core.node.runtime.sandboxer --socket PATH --state DIR`."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from .main import run
from .node import Settings


def main() -> None:
    parser = argparse.ArgumentParser(prog="sandboxer", description="Runs the Pods of a process node.")
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to serve the node agent at")
    parser.add_argument("--state", type=Path, required=True, help="folder of this sandboxer alone")
    parser.add_argument("--idle", type=float, default=Settings().idle, help="seconds that an unused zygote is kept")
    parser.add_argument("--parked", type=int, default=Settings().parked, help="children that wait per zygote, at least")
    parser.add_argument("--without", action="append", default=[], help="isolation not to use (may be repeated)")
    parser.add_argument("--ready-fd", type=int, help="descriptor on which to say R once drivers are served")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings(idle=chosen.idle, parked=chosen.parked, without=frozenset(chosen.without))
    run(chosen.socket, chosen.state, settings, chosen.ready_fd)


if __name__ == "__main__":
    main()
