"""The data dir: where everything of one cluster lies on this machine, who may read it, and which layout it has."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from faaslite.launch.errors import LaunchError

__all__ = ["LAYOUT", "Home", "default_home"]

LAYOUT = 1
"""The version of the layout below. A later release that changes it migrates from this number."""

_SOCKET_PATH_LIMIT = 100
"""Bytes of a Unix socket's path, with room below the kernel's 108 (unix(7))."""


def default_home() -> Path:
    """`$FAASLITE_HOME`, or `~/.faaslite`."""
    return Path(os.environ.get("FAASLITE_HOME") or Path.home() / ".faaslite")


class Home:
    """Paths below one data dir. Making the value touches nothing; `prepare` makes the folders."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.kubeconfig = self.path / "kubeconfig"
        self.settings = self.path / "cluster.json"
        self.engine = self.path / "engine.json"
        self.joined = self.path / "node.json"
        self.state = self.path / "state.db"
        self.encryption_keys = self.path / "encryption.keys"
        self.calls_keys = self.path / "calls.keys"
        self.packages = self.path / "packages"
        self.pki = self.path / "pki"
        self.logs = self.path / "logs"
        self.pod_logs = self.logs / "pods"
        self.audit_log = self.logs / "audit.log"
        self.nodes = self.path / "nodes"
        self.run = self.path / "run"
        self.lock = self.run / "supervisor.lock"
        self.supervisor_socket = self.run / "supervisor.sock"
        self.autoscaler_socket = self.run / "autoscaler.sock"
        self.api_socket = self.run / "api.sock"
        self.jobs_socket = self.run / "jobs.sock"

    def node(self, name: str) -> Path:
        """What one node keeps."""
        return self.nodes / name

    def clear_volumes(self) -> None:
        """Remove what lies in the volumes of Pods that are no more, copies of Secrets among it. Call it when nothing runs."""
        for each in self.nodes.glob("*/pods"):
            shutil.rmtree(each, ignore_errors=True)

    def sandboxer_socket(self, node: str) -> Path:
        return self.run / f"sandboxer-{node}.sock"

    def component_log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def prepare(self) -> None:
        """Make the folders, private to their owner, and check the layout's version.

        Raises LaunchError where the folder can't be used: not ours, not writable, too long a path, a newer layout.
        """
        longest = max(len(os.fsencode(self.sandboxer_socket("node-999"))), len(os.fsencode(self.supervisor_socket)))
        if longest > _SOCKET_PATH_LIMIT:
            raise LaunchError(
                f"the data dir {self.path} has too long a path for Unix sockets; choose a shorter one with --data-dir"
            )
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.stat().st_uid != os.geteuid():
                raise LaunchError(f"the data dir {self.path} belongs to another user; choose your own with --data-dir")
            self.path.chmod(0o700)
            for folder in (self.packages, self.pki, self.logs, self.pod_logs, self.nodes, self.run):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"the data dir {self.path} can't be used: {error.strerror or error}") from error
        self._check_version()

    def _check_version(self) -> None:
        version = self.path / "VERSION"
        try:
            found = int(version.read_text())
        except FileNotFoundError:
            version.write_text(f"{LAYOUT}\n")
            return
        except ValueError as error:
            raise LaunchError(f"{version} is not a number; is {self.path} a data dir of faaslite?") from error
        if found > LAYOUT:
            raise LaunchError(
                f"the data dir {self.path} was written by a newer faaslite (layout {found}, this one knows {LAYOUT}); upgrade"
            )
