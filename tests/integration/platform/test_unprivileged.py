"""The platform of an ordinary user: no root, and yet the main job, a kill, limits of what a function may touch, and nothing left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
CODE = """
    import os

    def attempt(do):
        try:
            return repr(do())[:80]
        except OSError as error:
            return type(error).__name__

    def handle(event, context):
        return {
            "pid": os.getpid(),
            "kubeconfig": attempt(lambda: open(os.path.join(event.query["home"], "kubeconfig")).read()),
            "state": attempt(lambda: os.listdir(event.query["home"])),
            "home": attempt(lambda: os.listdir(os.path.dirname(event.query["home"]))),
            "tmp": attempt(lambda: open(os.path.join(os.environ["TMPDIR"], "x"), "w").write("mine")),
        }
"""


@pytest.fixture(scope="module")
def theirs(platforms: Any, root_folder: Path) -> Any:
    """A platform whose commands run as `nobody` (as whoever runs the tests, where that is not root)."""
    own = platforms()
    holder = None
    if os.geteuid() == 0:
        # The checkout may lie where nobody may look: they get a copy, and Python's own path with it.
        code = own.sources.parent / "code"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "tests", ".*_cache", "docs")
        shutil.copytree(root_folder, code, ignore=ignored)
        subprocess.run(["chmod", "-R", "a+rX", str(code)], check=True)
        libraries = [each for each in sys.path if each.endswith("site-packages")]
        holder = showing_python(own.sources.parent)
        for each in (own.sources, own.scratch, own.sources.parent):
            os.chown(each, NOBODY, NOBODY)
        own.command = [
            "nsenter", f"--mount=/proc/{holder.pid}/ns/mnt", "setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs",
            os.path.realpath(sys.executable), "-P", "-m", "cli.main",
        ]  # fmt: skip
        own.environment |= {"PYTHONPATH": os.pathsep.join([str(code), *libraries]), "HOME": str(own.sources.parent)}
    try:
        own.up()
        yield own
        own.down()
    finally:
        own.faas("down", check=False)
        if holder is not None:
            holder.kill()
            holder.communicate()
    assert not [line for line in own.noise() if "Traceback" in line or "Exception" in line], own.noise()


def showing_python(folder: Path) -> subprocess.Popen[str]:
    """A process with a mount namespace in which this Python can be read by anybody, at the place where it lies."""
    prefix = Path(sys.base_prefix).resolve()
    closed = next((each for each in reversed(prefix.parents) if not each.stat().st_mode & 0o001), None)
    steps = ["set -e"]
    if closed is not None:
        (folder / "python").mkdir()
        steps += [
            f"mount --bind {prefix} {folder}/python", f"mount -t tmpfs -o mode=755 none {closed}", f"mkdir -p {prefix}",
            f"mount --bind {folder}/python {prefix}",
        ]  # fmt: skip
    steps += ["echo shown", "exec sleep infinity"]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(steps)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "shown\n"
    return holder


class TestOrdinaryUser:
    def test_the_main_job(self, theirs: Any, wait_until: Callable[..., Any]) -> None:
        node = theirs.status()["nodes"][0]
        assert node["status"] == "Ready" and "no_new_privs" in " ".join(node["isolation"])
        theirs.deploy("mine", CODE)
        theirs.faas("scale", "mine", "--idle", "1s")
        wait_until("scaling to zero", lambda: not theirs.pods("mine"))
        assert theirs.call(f"/function/mine?home={theirs.home}").status == 200
        theirs.faas("scale", "mine", "--idle", "60s")

    def test_what_a_function_may_touch(self, theirs: Any) -> None:
        found = theirs.call(f"/function/mine?home={theirs.home}").json
        assert found["tmp"] == "4"
        isolation = " ".join(theirs.status()["nodes"][0]["isolation"])
        if "landlock" in isolation or "mount" in isolation:
            refused = {"PermissionError", "FileNotFoundError"}
            assert {found[each] for each in ("kubeconfig", "state", "home")} <= refused, found

    def test_a_killed_agent_finds_its_pods_again(self, theirs: Any, wait_until: Callable[..., Any]) -> None:
        before = theirs.call(f"/function/mine?home={theirs.home}").json["pid"]
        os.kill(theirs.pid("node-1"), signal.SIGKILL)
        wait_until("its return", lambda: theirs.status()["ready"] and theirs.restarts("node-1") == 1, 15)
        assert theirs.call(f"/function/mine?home={theirs.home}").json["pid"] == before
