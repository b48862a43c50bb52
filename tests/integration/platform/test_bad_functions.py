"""Functions that are wrong in every way: each gives one clear error with its cause, and the platform goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

OK = 'def handle(event, context):\n    return "fine"\n'


@pytest.fixture(scope="module")
def witness(platform: Any) -> Any:
    """A function that must go on answering whatever the others do."""
    platform.deploy("witness", OK)
    return platform


@pytest.fixture(autouse=True)
def goes_on(witness: Any) -> Iterator[None]:
    yield
    assert witness.call("/function/witness").body == b"fine"
    status = witness.status()
    assert status["ready"] and all(each["restarts"] == 0 for each in status["components"]), status


BROKEN_AT_DEPLOY = [
    ("syntax", "def handle(event, context) return 1\n", ["handler.py:1", "expected ':'"]),
    ("nothing", "x = 1\n", ["handler.py", "handle"]),
    ("import", "import missing_module\n" + OK, ["missing_module", "requirements.txt"]),
    ("raise", 'raise ValueError("no\\nluck")\n' + OK, ["ValueError: no luck", "handler.py:1"]),
    ("exit", "import sys\nsys.exit(3)\n" + OK, ["sys.exit(3)", "handler.py:2"]),
    ("die", "import os\nos._exit(9)\n" + OK, ["exit"]),
    ("abort", "import os\nos.abort()\n" + OK, ["signal 6|SIGABRT|134"]),
    ("attribute", "def other(event, context):\n    pass\n", ["handle"]),
]


class TestWhatDoesNotStart:
    @pytest.mark.parametrize(("name", "code", "said"), BROKEN_AT_DEPLOY, ids=[each[0] for each in BROKEN_AT_DEPLOY])
    def test_deploy_says_why(self, witness: Any, name: str, code: str, said: list[str]) -> None:
        done = witness.deploy(f"bad-{name}", code, check=False)
        done.fails()
        for part in said:
            assert any(each in done.err for each in part.split("|")), done.err
        reply = witness.call(f"/function/bad-{name}")
        assert reply.status in (404, 503) and reply.json["error"] in ("FunctionNotFound", "FunctionNotReady")
        assert reply.headers["content-type"] == "application/json"
        if reply.status == 503:
            assert any(each in reply.json["message"].replace("\n", " ") for each in said[0].split("|"))
            witness.faas("delete", f"bad-{name}")

    def test_an_import_that_never_ends(self, witness: Any, wait_until: Callable[..., Any]) -> None:
        done = witness.deploy("bad-loop", "while True:\n    pass\n" + OK, "--wait-timeout", "3", check=False)
        done.fails("bad-loop does not serve after 3 s", "faas describe bad-loop", code=5)
        witness.faas("delete", "bad-loop")
        wait_until("its end", lambda: not witness.pods("bad-loop"), 60)

    def test_a_dependency_that_does_not_exist(self, witness: Any) -> None:
        done = witness.deploy(
            "bad-needs", OK, check=False, requirements_txt="surely-there-is-no-such-distribution-of-ours==1.0\n"
        )
        done.fails("surely-there-is-no-such-distribution-of-ours")

    def test_a_handler_that_is_not_there(self, witness: Any) -> None:
        witness.deploy("bad-handler", OK, "--handler", "handler:nothing", check=False).fails("nothing")
        witness.deploy("bad-handler", OK, "--handler", "other:handle", check=False).fails("other")


class TestWhatCannotBeAsked:
    @pytest.mark.parametrize(
        ("flags", "said", "code"),
        [
            (["--name", "Not_A_Label"], "'Not_A_Label' can't be a function's name", 1),
            (["--name", "x" * 60], "at most 50", 1),
            (["--runtime", "cobol"], "cobol", 1),
            (["--cron", "0 0 30 2 *"], "0 0 30 2 *", 1),
            (["--cron", "every day"], "every day", 1),
            (["--cron", "@every 0s"], "@every", 1),
            (["--env", "novalue"], "KEY=VALUE", 2),
            (["--env", "1X=a"], "1X", 1),
            (["--env", "PORT=1"], "PORT", 1),
            (["--timeout", "soon"], "soon", 1),
            (["--memory", "lots"], "lots", 1),
            (["--min", "5", "--max", "2"], "min", 1),
            (["--concurrency", "-1"], "concurrency", 1),
            (["--secret", "Not_A_Name"], "Not_A_Name", 1),
            (["-n", "not-there"], "not-there", 3),
        ],
        ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
    )
    def test_flags(self, witness: Any, flags: list[str], said: str, code: int) -> None:
        witness.deploy("flags", OK, *flags, check=False).fails(said, code=code)
        assert witness.faas("describe", "flags", check=False).code == 3

    def test_a_secret_that_does_not_exist_is_waited_for(self, witness: Any) -> None:
        done = witness.deploy("needy", OK, "--secret", "later", "--wait-timeout", "4", check=False)
        assert done.code in (1, 5) and 'secret "later" not found' in done.err, done.err
        witness.faas("delete", "needy")

    def test_files_that_make_no_sense(self, witness: Any) -> None:
        witness.faas("deploy", "/surely/not/there", check=False).fails("/surely/not/there doesn't exist")
        witness.deploy("flags", OK, check=False, function_yaml="spec: [1, 2]\n").fails("function.yaml")
        witness.deploy("flags", OK, check=False, function_yaml="spec: {scale: {min: many}}\n").fails("scale.min")
        witness.deploy("flags", OK, check=False, function_yaml="specs: {}\n").fails("'specs' is not known")
        witness.deploy("flags", OK, check=False, function_yaml="a: [\n").fails("function.yaml")
        empty = witness.sources / "empty"
        empty.mkdir()
        witness.faas("deploy", str(empty), check=False).fails("empty")


NAUGHTY = """
    import os, signal, sys, threading, time

    def handle(event, context):
        what = event.query["what"]
        if what == "raise":
            raise RuntimeError("with a secret in it")
        if what == "unserialisable":
            return {"it": object()}
        if what == "status":
            return "body", 99999
        if what == "nan":
            return {"x": float("nan")}
        if what == "header":
            return "a", 200, {"X-Bad": "one\\r\\nSet-Cookie: two"}
        if what == "sleep":
            time.sleep(30)
        if what == "loop":
            while True:
                pass
        if what == "exit":
            sys.exit(4)
        if what == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "segfault":
            import ctypes
            ctypes.string_at(0)
        if what == "print":
            for _ in range(100):
                print("x" * 99999)
        if what == "stderr":
            os.write(2, b"\\xff\\x00" * 200000)
        if what == "close":
            os.closerange(0, 64)
        if what == "recursion":
            return handle(event, context)
        if what == "big":
            return b"y" * 20_000_000
        return "survived"
"""


@pytest.fixture(scope="module")
def naughty(witness: Any) -> Any:
    witness.deploy("naughty", NAUGHTY, "--timeout", "2s", "--concurrency", "1")
    return witness


class TestWhatFailsMidCall:
    @pytest.mark.parametrize(
        ("what", "status", "error"),
        [
            ("raise", 500, ""),
            ("unserialisable", 500, ""),
            ("status", 500, ""),
            ("nan", 500, ""),
            ("header", 500, ""),
            ("recursion", 500, ""),
            ("exit", 500, ""),
            ("sleep", 504, "DeadlineExceeded"),
            ("loop", 504, "DeadlineExceeded"),
            ("die", 502, "InstanceDied"),
            ("segfault", 502, "InstanceDied"),
        ],
    )
    def test_the_caller_gets_one_json_error(
        self, naughty: Any, what: str, status: int, error: str, wait_until: Callable[..., Any]
    ) -> None:
        reply = naughty.call(f"/function/naughty?what={what}", X_Call_Id=f"call-{what}")
        assert reply.status == status, reply
        assert reply.headers["content-type"].startswith("application/json")
        assert f"call-{what}" in reply.body.decode()
        assert "Traceback" not in reply.body.decode()
        assert reply.headers["x-call-id"] == f"call-{what}" and reply.json["error"]
        if error:
            assert reply.json["error"] == error
        # The next calls are answered, by this instance or by one that replaces it.
        assert wait_until("an answer", lambda: naughty.call("/function/naughty?what=nothing").body == b"survived", 10)

    def test_the_traceback_is_in_the_log(self, naughty: Any) -> None:
        naughty.call("/function/naughty?what=raise")
        assert "RuntimeError: with a secret in it" in naughty.faas("logs", "naughty").out

    @pytest.mark.parametrize("what", ["print", "stderr"])
    def test_output_without_measure(self, naughty: Any, what: str) -> None:
        assert naughty.call(f"/function/naughty?what={what}").body == b"survived"

    def test_an_instance_that_closes_its_own_descriptors(self, naughty: Any, wait_until: Callable[..., Any]) -> None:
        assert naughty.call("/function/naughty?what=close").status in (200, 502, 504)
        assert wait_until("an answer", lambda: naughty.call("/function/naughty?what=nothing").body == b"survived", 30)

    def test_one_that_dies_again_and_again_is_replaced_within_seconds(
        self, naughty: Any, wait_until: Callable[..., Any]
    ) -> None:
        """A node's back-off of ten seconds and more is not what a caller of a good function should wait for."""
        for _ in range(3):
            naughty.call("/function/naughty?what=die")
            assert wait_until("an answer", lambda: naughty.call("/function/naughty?what=nothing").status == 200, 8)
        assert "died repeatedly" in naughty.faas("describe", "naughty").out

    def test_a_large_reply_is_passed_on_whole(self, naughty: Any) -> None:
        assert len(naughty.call("/function/naughty?what=big").body) == 20_000_000

    def test_what_the_command_says(self, naughty: Any) -> None:
        naughty.faas("invoke", "naughty", "?what=raise", check=False).fails("naughty answered 500", "(call ")
        naughty.faas("invoke", "nobody", check=False).fails("404", code=3)


class TestWhatDoesNotBehave:
    def test_children_and_threads_end_with_their_instance(self, witness: Any, wait_until: Callable[..., Any]) -> None:
        """Also those that left the process group and the session."""
        code = """
            import os, threading, time

            def handle(event, context):
                for _ in range(3):
                    threading.Thread(target=time.sleep, args=(3600,)).start()
                for _ in range(3):
                    if os.fork() == 0:
                        os.setsid()
                        time.sleep(3600)
                        os._exit(0)
                return "leaked"
        """
        before = below_sandboxer(witness)
        witness.deploy("leaky", code)
        for _ in range(3):
            assert witness.call("/function/leaky").body == b"leaked"
        assert len(below_sandboxer(witness) - before) >= 9
        witness.faas("delete", "leaky")
        wait_until("the end of what it leaked", lambda: len(below_sandboxer(witness) - before) <= 2, 60)

    def test_a_fork_bomb_stops_at_the_limit(self, witness: Any, wait_until: Callable[..., Any]) -> None:
        if os.geteuid() or not os.path.isdir("/sys/fs/cgroup"):
            pytest.skip("limits need control groups")
        code = """
            import os, time

            def handle(event, context):
                made = 0
                try:
                    while made < 5000:
                        if os.fork() == 0:
                            time.sleep(3600)
                            os._exit(0)
                        made += 1
                except BlockingIOError:
                    pass
                return str(made)
        """
        witness.deploy("bomb", code)
        assert 0 < int(witness.call("/function/bomb").body) < 600
        assert witness.call("/function/witness").body == b"fine"
        wait_until("the state", lambda: "TooManyProcesses" in witness.faas("list").out, 60)
        assert "reached the limit of processes and threads" in witness.faas("why", "bomb").out
        witness.faas("delete", "bomb")
        wait_until("its end", lambda: not witness.pods("bomb"), 60)

    def test_the_platform_cannot_be_read_or_written(self, witness: Any) -> None:
        code = f"""
            import os, pathlib

            HOME = {str(witness.home)!r}

            def attempt(do):
                try:
                    return repr(do())[:80]
                except OSError as error:
                    return type(error).__name__

            def handle(event, context):
                return {{
                    "kubeconfig": attempt(lambda: open(HOME + "/kubeconfig").read()),
                    "state": attempt(lambda: open(HOME + "/state.db", "rb").read(10)),
                    "socket": attempt(lambda: os.listdir(HOME + "/run")),
                    "etc": attempt(lambda: open("/etc/faaslite-was-here", "w")),
                    "package": attempt(lambda: open(os.environ["FAASLITE_PACKAGE"] + "/new", "w")),
                    "root": attempt(lambda: open("/new", "w")),
                    "tmp": attempt(lambda: pathlib.Path(os.environ["TMPDIR"], "x").write_text("mine")),
                    "kill": attempt(lambda: os.kill({os.getpid()}, 0)),
                }}
        """
        witness.deploy("nosy", code)
        found = witness.call("/function/nosy").json
        assert found.pop("tmp") == "4"
        refused = {"PermissionError", "FileNotFoundError", "OSError", "ProcessLookupError"}
        assert set(found.values()) <= refused, found
        witness.faas("delete", "nosy")

    def test_memory_over_the_limit_is_oom_killed_and_said_so(
        self, witness: Any, wait_until: Callable[..., Any]
    ) -> None:
        if "cgroup" not in str(witness.status()["nodes"]):
            pytest.skip("this node has no control groups, so no memory limits")
        code = """
            def handle(event, context):
                context.logger.info("from the first run" if event.query["mb"] == "1" else "")
                return str(len(bytearray(int(event.query["mb"]) * 1024 * 1024)))
        """
        witness.deploy("hungry", code, "--memory", "64Mi")
        assert witness.call("/function/hungry?mb=1").body == b"1048576"
        reply = witness.call("/function/hungry?mb=200")
        assert (reply.status, reply.json["error"]) == (502, "InstanceDied")
        wait_until("describe saying so", lambda: "Healthy: False  OOMKilled" in witness.faas("describe", "hungry").out)
        wait_until("answers again", lambda: witness.call("/function/hungry?mb=2").status == 200)
        assert "OOMKilled" in witness.faas("list").out
        assert "from the first run" in witness.faas("logs", "hungry").out
        assert "raise spec.resources.limits.memory" in witness.faas("why", "hungry").out
        # It is ready all the while, and a new revision begins anew.
        assert "Ready: True" in witness.faas("describe", "hungry").out
        witness.deploy("hungry", code, "--memory", "128Mi")
        wait_until("health", lambda: "Healthy: True  NoTrouble" in witness.faas("describe", "hungry").out)
        witness.faas("delete", "hungry")

    def test_a_full_disk_is_said_so(self, witness: Any, wait_until: Callable[..., Any]) -> None:
        if os.geteuid() or "mount" not in str(witness.status()["nodes"]):
            pytest.skip("this node bounds no temporary files")
        code = """
            import os

            def handle(event, context):
                fd = os.open(os.environ["TMPDIR"] + "/big", os.O_CREAT | os.O_WRONLY)
                os.posix_fallocate(fd, 0, int(event.query["mb"]) << 20)
                return "fits"
        """
        witness.deploy("filler", code)
        assert witness.call("/function/filler?mb=1").body == b"fits"
        reply = witness.call("/function/filler?mb=600")
        assert reply.status == 500 and "No space left on device" in reply.json["message"]
        # What was allocated until there was no more is let go; this takes all there is.
        assert witness.call("/function/filler?mb=512").body == b"fits"
        wait_until("the state", lambda: "DiskFull" in witness.faas("list").out, 60)
        witness.faas("delete", "filler")


def below_sandboxer(platform: Any) -> set[int]:
    return {each.pid for each in psutil.Process(platform.pid("sandboxer-1")).children(recursive=True)}


class TestDownInTheMiddle:
    def test_down_while_deploys_run(self, platforms: Any) -> None:
        """It ends at once, the deploys say what became of them, and nothing is left."""
        own = platforms()
        own.up()
        deploys = [
            own.start("deploy", str(own.source(f"f{n}", "import time\ntime.sleep(20)\n" + OK))) for n in range(3)
        ]
        first = deploys[0]
        assert first.stderr is not None
        for line in first.stderr:
            if line.startswith("waiting"):
                break
        own.down()
        for each in deploys:
            _, complaint = each.communicate(timeout=60)
            assert each.returncode != 0 and "Traceback" not in complaint, complaint
            assert complaint.splitlines()[-1].startswith("error: "), complaint
        assert not own.noise()
