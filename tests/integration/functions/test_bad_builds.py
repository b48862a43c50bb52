"""What can't be built, and code that misuses its instance: one clear reason each, and the last good revision serves on."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
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


def condition(platform, name="fragile", type_="Ready"):
    document = platform.kube("GET", f"/apis/faaslite.dev/v1/namespaces/default/functions/{name}").json
    return next(each for each in document["status"]["conditions"] if each["type"] == type_)


UNRESOLVABLE = "--no-index\nno-such-package-of-ours==9.9\n"


def test_requirements_that_can_not_be_resolved_are_said_everywhere_and_keep_their_log(good, until):
    done = good.deploy("fragile", GOOD, check=False, requirements_txt=UNRESOLVABLE)
    said = ("requirements.txt: ", "no-such-package-of-ours", "wheels for Python 3.")
    done.fails(*said, "fragile-00001 keeps serving", "build log: faas logs fragile --build")
    assert "building the dependency layer in the cluster" in done.err
    assert "ERROR: No matching distribution found" in done.err  # its log, as it ran
    for type_ in ("Built", "Ready"):
        found = condition(good, type_=type_)
        assert (found["status"], found["reason"]) == ("False", "BuildFailed")
        assert all(each in found["message"] for each in said)
    assert "No matching distribution found" in good.faas("logs", "fragile", "--build").out
    until("its event", lambda: "Warning  BuildFailed: requirements.txt" in good.faas("describe", "fragile").out)


def test_who_asks_again_has_it_tried_again_and_who_asks_for_nothing_is_rid_of_it(good):
    again = good.deploy("fragile", GOOD, check=False, requirements_txt=UNRESOLVABLE)
    again.fails("no-such-package-of-ours")
    assert "installing --no-index, no-such-package-of-ours==9.9" in again.err
    good.deploy("fragile", GOOD)
    with pytest.raises(StopIteration):
        condition(good, type_="Built")
    good.faas("logs", "fragile", "--build", check=False).fails("no build of fragile is kept", code=3)


def test_a_build_on_the_callers_machine_keeps_its_log_there(good):
    wanted = "--no-index\nsix==1.16.0\nsix==1.15.0\n"
    done = good.deploy("fragile", GOOD, "--build", "local", check=False, requirements_txt=wanted)
    done.fails("requirements.txt: ", "six", "build log: ")
    log = done.err.partition("build log: ")[2].partition(")")[0]
    assert "six" in Path(log).read_text()


def wheel(folder, name="tiny", tag="py3-none-any"):
    """A distribution that needs no index."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as file:
        file.writestr(f"{name}.py", "VALUE = 'from a wheel'")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        file.writestr(f"{info}/RECORD", "")


def test_a_wheel_for_another_platform(good):
    folder = good.source("fragile", GOOD)
    wheel(folder, "alien", "cp311-cp311-win_amd64")
    (folder / "requirements.txt").write_text("--no-index\n./alien-1.0-cp311-cp311-win_amd64.whl\n")
    said = ("alien-1.0-cp311-cp311-win_amd64.whl is not a supported wheel", "wheels for Python 3.", "Linux")
    good.faas("deploy", str(folder), check=False).fails(*said, "keeps serving")
    found = condition(good)
    assert (found["status"], found["reason"]) == ("False", "BuildFailed")
    assert all(each in found["message"] for each in said)


def test_files_of_the_package_can_be_required_and_others_can_not(good, tmp_path):
    code = "import tiny\n\n\ndef handle(event, context):\n    return tiny.VALUE\n"
    folder = good.source("wheeled", code)
    wheel(folder)
    (folder / "requirements.txt").write_text("--no-index\n./tiny-1.0-py3-none-any.whl\n")
    done = good.faas("deploy", str(folder))
    assert "installed tiny==1.0" in done.err and "uploaded the layer" in done.err
    assert good.call("/function/wheeled").body == b"from a wheel"
    assert good.faas("diff", str(folder)).out == "= wheeled: no change\n"
    wheel(tmp_path)
    (folder / "requirements.txt").write_text(f"{tmp_path}/tiny-1.0-py3-none-any.whl\n")
    good.faas("deploy", str(folder), check=False).fails("is not in the folder that is deployed", "--build local")
    good.faas("delete", "wheeled")


def test_what_no_command_sends_is_refused_and_said_on_the_function(good, until):
    """A link out of the archive, and a package that is in no store."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz") as tar:
        link = tarfile.TarInfo("passwd")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    digest = f"sha256:{hashlib.sha256(plain.getvalue()).hexdigest()}"
    reply = good.http(
        f"{good.url}/system/packages/{digest}?namespace=default", plain.getvalue(), method="PUT",
        Authorization=f"Bearer {good.token}",
    )  # fmt: skip
    assert (reply.status, reply.json["error"]) == (400, "PackageInvalid")
    assert '"passwd" is a link out of the archive' in reply.json["message"]
    path = "/apis/faaslite.dev/v1/namespaces/default/functions/fragile"
    before = good.kube("GET", path).json["spec"]["package"]["digest"]
    change = {"spec": {"package": {"digest": digest, "requirements": None}}}
    assert good.kube("PATCH", path, change, "application/merge-patch+json").status == 200
    said = until("the reason", lambda: (found := condition(good))["reason"] == "PackageNotFound" and found)
    assert said["status"] == "False" and digest in said["message"] and "keeps serving" in said["message"]
    assert condition(good, type_="Packaged")["status"] == "False"
    change["spec"]["package"]["digest"] = before
    good.kube("PATCH", path, change, "application/merge-patch+json")


def test_a_package_over_the_limit_is_not_even_read(good):
    folder = good.source("fragile", GOOD)
    with open(folder / "model.bin", "wb") as file:
        file.truncate(3 << 30)
    good.faas("deploy", str(folder), check=False).fails("too large for a package", "model.bin", ".faasignore")


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
    done.fails("faaslite/python:3.14", "keeps serving")
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


STARTS_BADLY = [
    ("import sys\nsys.exit(3)\n", "StartFailed", "sys.exit(3)"),
    ("import os\nos._exit(9)\n", "StartFailed", "exit code 9"),
    ("import missing_module\n", "StartFailed", "missing_module"),
]


@pytest.mark.parametrize(("code", "reason", "said"), STARTS_BADLY, ids=["exit", "die", "import"])
def test_what_ends_at_its_import_is_on_the_condition(good, code, reason, said):
    good.deploy("fragile", code + GOOD, check=False).fails(said, "keeps serving")
    found = condition(good)
    assert (found["status"], found["reason"]) == ("False", reason) and said in found["message"]


def test_memory_over_the_limit_at_the_import_is_on_the_condition(good, needs):
    needs("cgroup" in json.dumps(good.status()), "a node that limits memory", "run as root, with cgroups")
    code = "whole = bytearray(300 << 20)\n" + GOOD
    good.deploy("fragile", code, "--memory", "64Mi", check=False).fails("ran out of memory", "keeps serving")
    found = condition(good)
    assert (found["status"], found["reason"]) == ("False", "OOMKilled")


def test_memory_over_the_limit_is_said_by_the_command(good, needs, until):
    status = good.status()
    needs("cgroup" in json.dumps(status), "a node that limits memory", "run as root, with cgroups")
    good.deploy("greedy", GREEDY, "--memory", "128Mi")
    assert good.call("/function/greedy/memory").json["error"] == "InstanceDied"
    until("describe saying so", lambda: "OOMKilled: Instance greedy-" in good.faas("describe", "greedy").out)
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
