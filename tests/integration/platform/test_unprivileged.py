"""The platform of an ordinary user: no root, and yet the main job, a kill, limits of what a function may touch, and nothing left."""

from __future__ import annotations

import os
import signal
import zipfile
from collections.abc import Callable
from typing import Any

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

    def test_dependencies_are_built(self, theirs: Any) -> None:
        folder = theirs.source("wheeled", "import tiny\n\ndef handle(event, context):\n    return tiny.VALUE\n")
        with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as file:
            file.writestr("tiny.py", "VALUE = 'from a wheel'")
            file.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
            file.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            file.writestr("tiny-1.0.dist-info/RECORD", "")
        (folder / "requirements.txt").write_text("--no-index\n./tiny-1.0-py3-none-any.whl\n")
        assert "installed tiny==1.0" in theirs.faas("deploy", str(folder)).err
        assert theirs.call("/function/wheeled").body == b"from a wheel"

    def test_a_killed_agent_finds_its_pods_again(self, theirs: Any, wait_until: Callable[..., Any]) -> None:
        before = theirs.call(f"/function/mine?home={theirs.home}").json["pid"]
        os.kill(theirs.pid("node-1"), signal.SIGKILL)
        wait_until("its return", lambda: theirs.status()["ready"] and theirs.restarts("node-1") == 1, 15)
        assert theirs.call(f"/function/mine?home={theirs.home}").json["pid"] == before
