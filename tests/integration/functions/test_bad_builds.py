"""What can't be built, and code that misuses its instance: one clear reason each, and the last good revision serves on."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

GOOD = 'def handle(event, context):\n    return "good"\n'


@pytest.fixture(scope="module")
def good(platform):
    platform.deploy("fragile", GOOD)
    return platform


@pytest.fixture(autouse=True)
def serves_on(good):
    yield
    assert good.call("/function/fragile").body == b"good"


def condition(platform, name="fragile"):
    document = platform.kube("GET", f"/apis/faaslite.dev/v1/namespaces/default/functions/{name}").json
    return next(each for each in document["status"]["conditions"] if each["type"] == "Ready")


def test_requirements_that_can_not_be_resolved_keep_their_log(good):
    done = good.deploy("fragile", GOOD, check=False, requirements_txt="no-such-package-of-ours==9.9\n")
    done.fails("requirements.txt: ", "no-such-package-of-ours", "wheels for Python 3.", "build log: ")
    log = done.err.partition("build log: ")[2].partition(")")[0]
    assert "no-such-package-of-ours" in Path(log).read_text()
    conflict = good.deploy("fragile", GOOD, check=False, requirements_txt="six==1.16.0\nsix==1.15.0\n")
    conflict.fails("requirements.txt: ", "six")


def test_a_wheel_for_another_platform(good, tmp_path):
    name = "alien-1.0-cp311-cp311-win_amd64.whl"
    with zipfile.ZipFile(tmp_path / name, "w") as wheel:
        wheel.writestr("alien.py", "")
    done = good.deploy("fragile", GOOD, check=False, requirements_txt=f"{tmp_path / name}\n")
    done.fails("alien-1.0-cp311-cp311-win_amd64.whl is not a supported wheel", "wheels for Python 3.", "Linux")


def test_links_out_of_the_package_and_other_pythons(good):
    folder = good.source("fragile", GOOD)
    (folder / "passwd").symlink_to("/etc/passwd")
    good.faas("deploy", str(folder), check=False).fails("links out of the package, to /etc/passwd", ".faasignore")
    (folder / "passwd").unlink()
    (folder / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.99"\ndependencies = ["six"]\n')
    good.faas("deploy", str(folder), check=False).fails("pyproject.toml requires Python >=3.99", "--runtime")


def test_a_runtime_that_no_node_has_shows_on_the_function(good):
    folder = good.source("fragile", GOOD)
    done = good.faas("deploy", str(folder), "--runtime", "python3.14", check=False)
    done.fails("faaslite/python:3.14", "fragile-00001 keeps serving")
    found = condition(good)
    assert (found["status"], found["reason"]) == ("False", "ErrImagePull") or found["reason"] == "ImagePullBackOff"
    assert good.faas("deploy", str(folder)).code == 0  # and back


def test_an_import_that_fails_leaves_the_last_good_revision(good):
    done = good.deploy("fragile", "import json\njson.loads('{')\n" + GOOD, check=False)
    done.fails("JSONDecodeError", "handler.py:2", "keeps serving")
    found = condition(good)
    assert (found["status"], found["reason"]) == ("False", "StartFailed") and "JSONDecodeError" in found["message"]
    assert good.deploy("fragile", GOOD).code == 0


GREEDY = """
import os, threading, time

def handle(event, context):
    match event.path:
        case "/fork":
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
            return {"child": pid}
        case "/threads":
            for _ in range(20):
                threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
            return {"threads": threading.active_count()}
        case "/disk":
            with open(os.path.join(os.environ["TMPDIR"], "big"), "wb") as file:
                for _ in range(64):
                    file.write(bytes(16 << 20))
            return "written"
        case "/memory":
            return len(bytearray(os.urandom(1 << 20)) * 512)
    return os.getpid()
"""


def test_memory_over_the_limit_is_said_by_the_command(good, needs, until):
    status = good.status()
    needs("cgroup" in json.dumps(status), "a node that limits memory", "run as root, with cgroups")
    good.deploy("greedy", GREEDY, "--memory", "128Mi")
    assert good.call("/function/greedy/memory").json["error"] == "InstanceDied"
    until("describe saying so", lambda: "OOMKilled" in good.faas("describe", "greedy").out)
    assert good.call("/function/greedy").status == 200  # another instance


def test_forks_and_threads_do_not_outlive_their_instance(good):
    good.deploy("greedy", GREEDY, "--memory", "128Mi")
    child = good.call("/function/greedy/fork").json["child"]
    assert child > 0 and good.call("/function/greedy/threads").json["threads"] >= 21
    assert good.call("/function/greedy").status == 200
    good.faas("delete", "greedy")


def test_a_disk_that_fills_is_the_instances_own(good, needs):
    needs("mount" in json.dumps(good.status()), "a node that mounts", "run as root")
    good.deploy("greedy", GREEDY, "--memory", "2Gi")
    reply = good.call("/function/greedy/disk")
    assert (reply.status, reply.json["error"]) == (500, "HandlerError")
    assert "No space left on device" in reply.json["message"]
    assert good.call("/function/greedy").status == 200
    good.faas("delete", "greedy")
