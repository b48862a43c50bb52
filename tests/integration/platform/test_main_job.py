"""The main job as a person does it: deploy, call from zero, scale out, cron, back to zero, and everything that the command offers."""

from __future__ import annotations

import json
import re
import struct
import threading
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--workers", "2")
EXECUTED = True


def picture(width: int, height: int) -> bytes:
    """A PNG of one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\x00" + b"\x40\x80\xc0" * width) * height
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def hello(platform: Any, root_folder: Path) -> Any:
    platform.faas("deploy", str(root_folder / "examples" / "hello"))
    return platform


class TestMainJob:
    def test_hello_from_zero_over_load_by_cron_and_back_to_zero(
        self, hello: Any, root_folder: Path, wait_until: Callable[..., Any]
    ) -> None:
        hello.faas("scale", "hello", "--idle", "1s")
        wait_until("scaling to zero", lambda: hello.replicas("hello") == 0 and not hello.pods("hello"))

        reply = hello.call("/function/hello?name=stranger")
        assert (reply.status, reply.json["message"]) == (200, "Hello, stranger!")
        assert float(reply.headers["x-faaslite-cold-start"]) > 0

        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(lambda _: hello.call("/function/hello?pause=0.5"), range(64)))
        assert {each.status for each in replies} == {200}
        assert len({each.json["instance"] for each in replies}) >= 2

        hello.faas("deploy", str(root_folder / "examples" / "hello"), "--cron", "@every 1s")
        assert "@every 1s" in hello.faas("cron", "list").out

        def ran() -> bool:
            runs = hello.faas("cron", "history", "hello", "-o", "json").json
            return sum(each["status"] == "Succeeded" and each["httpStatus"] == 200 for each in runs) >= 2

        wait_until("two runs by cron", ran)
        calls = hello.faas("calls", "list", "-o", "json").json
        record = hello.faas("calls", "get", calls[-1]["id"], "-o", "json").json
        assert (record["trigger"], record["function"], record["status"]) == ("cron", "hello", "Succeeded")
        assert "Hello" in record["result"]["body"]

        hello.faas("deploy", str(root_folder / "examples" / "hello"))
        hello.faas("scale", "hello", "--idle", "1s")
        assert hello.faas("cron", "list").out == ""
        wait_until("scaling to zero again", lambda: hello.replicas("hello") == 0 and not hello.pods("hello"), 60)

    def test_notes_is_a_small_json_api_with_paths(self, platform: Any, root_folder: Path) -> None:
        platform.faas("deploy", str(root_folder / "examples" / "notes"))
        made = platform.call("/function/notes/notes", b'{"text": "milk"}')
        assert (made.status, made.headers["location"]) == (201, "/notes/1")
        assert platform.call("/function/notes/notes/1").json == {"id": 1, "text": "milk"}
        assert platform.call("/function/notes/notes/1", method="DELETE").status == 204
        assert platform.call("/function/notes/notes/1").status == 404
        assert platform.call("/function/notes/notes", method="PUT").headers["allow"] == "GET, POST"

    def test_thumbnails_has_its_dependency_and_reads_a_picture(self, platform: Any, root_folder: Path) -> None:
        done = platform.faas("deploy", str(root_folder / "examples" / "thumbnails"), timeout=180)
        assert "dependency layer" in done.err
        reply = platform.call("/function/thumbnails?size=10", picture(40, 20))
        assert (reply.status, reply.headers["content-type"], reply.headers["x-size"]) == (200, "image/png", "10x5")
        assert struct.unpack(">II", reply.body[16:24]) == (10, 5)
        assert platform.call("/function/thumbnails", b"no picture").status == 422
        platform.faas("delete", "thumbnails")


class TestTheCommand:
    def test_list_and_describe_show_what_is_there(self, hello: Any) -> None:
        hello.call("/function/hello")
        listed = hello.faas("list").out.splitlines()
        row = next(line for line in listed if line.startswith("hello "))
        assert "True" in row and hello.url in row
        described = hello.faas("describe", "hello").out
        for part in ("Name:       hello", "Traffic:    hello-0000", "Ready: True", "instances ready", "Events:"):
            assert part in described
        assert hello.faas("describe", "hello", "-o", "json").json["function"]["metadata"]["name"] == "hello"

    def test_logs_follow_shows_what_instances_write_as_they_write_it(self, hello: Any) -> None:
        hello.call("/function/hello?name=before")
        follower = hello.start("logs", "-f", "hello")
        try:
            seen, found = [], threading.Event()

            def read() -> None:
                for line in follower.stdout:
                    seen.append(line)
                    if "greeting after" in line:
                        found.set()

            reader = threading.Thread(target=read)
            reader.start()
            hello.call("/function/hello?name=after")
            assert found.wait(20), seen
        finally:
            follower.send_signal(2)
            _, complaint = follower.communicate(timeout=20)
            reader.join(20)
        assert follower.returncode in (0, 130) and "Traceback" not in complaint, complaint

    def test_logs_of_instances_that_are_gone_can_be_read(self, platform: Any, wait_until: Callable[..., Any]) -> None:
        platform.deploy("gone", 'def handle(event, context):\n    print("last words")\n    return "x"\n')
        platform.call("/function/gone")
        platform.faas("scale", "gone", "--idle", "1s")
        wait_until("its end", lambda: not platform.pods("gone"))
        done = platform.faas("logs", "gone", check=False)
        assert "last words" in done.out, done
        platform.faas("delete", "gone")

    def test_a_scaled_function_keeps_its_minimum(self, platform: Any, wait_until: Callable[..., Any]) -> None:
        platform.deploy("kept", 'def handle(event, context):\n    return "x"\n')
        platform.faas("scale", "kept", "--min", "3")
        wait_until("three instances", lambda: platform.replicas("kept") == 3)
        platform.faas("scale", "kept", "--min", "0", "--idle", "1s")
        wait_until("none", lambda: not platform.pods("kept"))
        platform.faas("delete", "kept")
        assert platform.call("/function/kept").status == 404

    def test_environment_and_secrets_reach_the_function(self, platform: Any) -> None:
        platform.faas("secret", "create", "db", "--from-literal", "password=s3cret", "--from-literal", "user=ada")
        code = """
            import os, pathlib

            def handle(event, context):
                secret = pathlib.Path(os.environ["FAASLITE_SECRETS"], "db")
                return {
                    "size": os.environ["SIZE"],
                    "password": secret.joinpath("password").read_text(),
                    "user": context.secrets["db"]["user"] if isinstance(context.secrets, dict) else str(context.secrets),
                }
        """
        platform.deploy("config", code, "--env", "SIZE=4=2", "--secret", "db")
        reply = platform.call("/function/config").json
        assert (reply["size"], reply["password"]) == ("4=2", "s3cret")
        listed = platform.faas("secret", "list")
        assert "password,user" in listed.out and "s3cret" not in listed.out
        platform.faas("delete", "config")
        platform.faas("secret", "delete", "db")
        assert "db" not in platform.faas("secret", "list").out

    def test_namespaces_keep_functions_apart(self, platform: Any) -> None:
        platform.faas("namespace", "create", "team-a")
        assert "team-a" in platform.faas("namespace", "list").out
        code = 'def handle(event, context):\n    return "{} in " + context.namespace\n'
        platform.deploy("who", code.format("theirs"), "-n", "team-a")
        platform.deploy("who", code.format("ours"))
        assert platform.call("/function/who.team-a").body == b"theirs in team-a"
        assert platform.call("/function/who").body == b"ours in default"
        assert platform.faas("invoke", "who", "-n", "team-a").out.strip() == "theirs in team-a"
        platform.faas("namespace", "delete", "team-a")
        assert platform.call("/function/who.team-a").status in (404, 503)
        assert platform.call("/function/who").body == b"ours in default"
        platform.faas("delete", "who")

    def test_an_async_call_is_a_record_with_its_result(self, hello: Any, wait_until: Callable[..., Any]) -> None:
        accepted = hello.call("/async-function/hello?name=later", b"", method="POST")
        assert accepted.status == 202
        call = accepted.json["callId"]

        def record() -> Any:
            found = hello.faas("calls", "get", call, "-o", "json").json
            return found if found["finishedAt"] else None

        done = wait_until("the call", record)
        assert (done["status"], done["attempts"], done["httpStatus"]) == ("Succeeded", 1, 200)
        assert json.loads(done["result"]["body"])["message"] == "Hello, later!"

    def test_up_twice_says_that_it_is_up(self, hello: Any) -> None:
        hello.faas("up", "--detach", check=False).fails("already up", "faas down")
        assert hello.call("/function/hello").status == 200

    def test_init_makes_a_function_that_deploys(self, platform: Any) -> None:
        folder = platform.sources / "greeter"
        platform.faas("init", str(folder))
        platform.faas("deploy", str(folder))
        assert "Hello, Ada!" in platform.faas("invoke", "greeter", "-d", "Ada").out
        platform.faas("init", str(folder), check=False).fails("not an empty folder", code=2)
        platform.faas("delete", "greeter")


class TestRedeploying:
    CODE = """
        import time

        def handle(event, context):
            time.sleep(0.05)
            return "{}"
    """

    def test_no_call_fails_while_revisions_change(self, platform: Any, load: Any) -> None:
        platform.deploy("steady", self.CODE.format("one"))
        with load(platform.url + "/function/steady", clients=6) as running:
            for version in ("two", "three", "four"):
                platform.deploy("steady", self.CODE.format(version))
                running.wait(20)
        assert running.failed == []
        assert platform.call("/function/steady").body == b"four"
        platform.faas("delete", "steady")

    def test_a_broken_revision_leaves_the_last_good_one_serving(self, platform: Any, load: Any) -> None:
        platform.deploy("sturdy", self.CODE.format("good"))
        with load(platform.url + "/function/sturdy", clients=2) as running:
            broken = platform.deploy("sturdy", "import missing_thing\ndef handle(e, c): return 'bad'\n", check=False)
            broken.fails("sturdy was not deployed", "No module named 'missing_thing'", "requirements.txt")
            running.wait(10)
        assert running.failed == []
        assert platform.call("/function/sturdy").body == b"good"
        described = platform.faas("describe", "sturdy").out
        assert re.search(r"Ready: False .*missing_thing", described) and "Traffic:    sturdy-00001 100%" in described
        platform.deploy("sturdy", self.CODE.format("mended"))
        assert platform.call("/function/sturdy").body == b"mended"
        platform.faas("delete", "sturdy")


class TestRestarting:
    def test_down_and_up_keep_functions_ports_and_records(self, hello: Any) -> None:
        before, calls = hello.status(), hello.faas("calls", "list", "-o", "json").json
        hello.down()
        hello.faas("list", check=False).fails(code=4)
        hello.faas("down", check=False).fails("not running", "faas up", code=4)
        after = hello.up()
        assert (after["api"], after["gateway"]) == (before["api"], before["gateway"])
        assert len(after["components"]) == len(before["components"])
        reply = hello.call("/function/hello?name=again")
        assert reply.json["message"] == "Hello, again!"
        known = {each["id"] for each in hello.faas("calls", "list", "-o", "json").json}
        assert {each["id"] for each in calls} <= known
