"""`faaslite-build`, without an index: what it reads, what it refuses, what it hands over."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import sys
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
FOLDER = ROOT / "runtime-images" / "python"


@pytest.fixture(scope="module")
def building():
    spec = importlib.util.spec_from_file_location("building_under_test", FOLDER / "building.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_carries_the_same_installing_as_the_command():
    ours = (ROOT / "faaslite" / "build" / "installing.py").read_bytes()
    assert (FOLDER / "installing.py").read_bytes() == ours, "cp faaslite/build/installing.py runtime-images/python/"


def test_requirements_have_a_source_and_a_python(building):
    text = "# from pyproject.toml\n# requires-python: >=3.12\n# why\nsix\n\n./own.whl"
    assert building.read_requirements(text) == ("pyproject.toml", ">=3.12", ["six", "./own.whl"])
    assert building.read_requirements("six") == ("spec.package.requirements", "", ["six"])


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        ("", True), (">=3.11", True), (">=3.11,<4", True), ("==3.11.*", True), ("~=3.11", True), ("~=3.11.2", True), ("!=3.11.4", True),
        (">3.11", True), ("<=3.11.5", True), ("==3.11.5", True), ("!=3.12.*", True), ("~= 3.10", True),
        (">=3.12", False), ("<3.11", False), ("==3.12.*", False), ("~=3.11.6", False), ("!=3.11.*", False), ("==3.11", False), ("~=2.7", False),
    ],
)  # fmt: skip
def test_the_python_that_is_asked_for(building, wanted, fits):
    if fits:
        building.check_python("a.py", wanted, (3, 11, 5))
    else:
        with pytest.raises(
            building.Failed, match=r"a.py requires Python .*, the function's runtime is Python 3.11; say"
        ):
            building.check_python("a.py", wanted, (3, 11, 5))


def test_what_is_no_specifier(building):
    with pytest.raises(building.Failed, match="is no version specifier"):
        building.check_python("a.py", "three", (3, 11, 5))


def test_an_archive_is_the_same_for_the_same_files_and_within_limits(building, tmp_path):
    folder = tmp_path / "layer"
    (folder / "six").mkdir(parents=True)
    (folder / "six" / "__init__.py").write_text("x = 1")
    (folder / "link.py").symlink_to("six/__init__.py")
    first, size = building.pack(folder, tmp_path / "one.tar.gz")
    assert building.pack(folder, tmp_path / "two.tar.gz") == (first, size)
    data = (tmp_path / "one.tar.gz").read_bytes()
    assert (first, size) == (f"sha256:{hashlib.sha256(data).hexdigest()}", len(data))
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(data))) as tar:
        assert sorted(tar.getnames()) == ["link.py", "six/__init__.py"]
    with pytest.raises(building.Failed, match="over the limit of 0 MiB"):
        building.pack(folder, tmp_path / "x", unpacked=3)
    with pytest.raises(building.Failed, match="pack to more than 0 MiB, the limit of the package store"):
        building.pack(folder, tmp_path / "x", most=20)
    (folder / "out").symlink_to("../../etc/passwd")
    with pytest.raises(building.Failed, match="links out of the layer, to ../../etc/passwd"):
        building.pack(folder, tmp_path / "x")


@pytest.fixture
def store():
    """A package store that answers with the codes in `answers`, then 201; `got` is what it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.got.append((self.path, self.headers["Authorization"], body))
            code = server.answers.pop(0) if server.answers else 201
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps({"message": f"no: {code}"}).encode())

        def log_message(self, *_):
            """Not to the test's output."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.got, server.answers = [], []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def environment(tmp_path, store, requirements):
    (tmp_path / "work").mkdir()
    (tmp_path / "token").write_text("secret\n")
    return {
        "FAASLITE_BUILD": str(tmp_path / "work"),
        "FAASLITE_REQUIREMENTS": requirements,
        "FAASLITE_PACKAGE": str(tmp_path / "package"),
        "FAASLITE_STORE": f"http://127.0.0.1:{store.server_port}",
        "FAASLITE_NAMESPACE": "team",
        "FAASLITE_TOKEN_FILE": str(tmp_path / "token"),
        "FAASLITE_TERMINATION_LOG": str(tmp_path / "message"),
        "PATH": "/usr/bin:/bin",
    }


def wheel(folder, name="tiny"):
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as file:
        file.writestr(f"{name}.py", "VALUE = 1")
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_a_layer_from_a_file_of_the_package_reaches_the_store(building, store, tmp_path, capsys):
    wheel(tmp_path / "package")
    store.answers = [503]  # it starts beside the build
    assert building.main(environment(tmp_path, store, "--no-index\n./tiny-1-py3-none-any.whl")) == 0
    (again, (path, authorization, body)) = store.got
    assert again == (path, authorization, body)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert (path, authorization) == (f"/system/packages/{digest}?namespace=team", "Bearer secret")
    assert json.loads((tmp_path / "message").read_text()) == {"digest": digest, "size": len(body)}
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
        names = tar.getnames()
    assert "tiny.py" in names and any(each.endswith(".pyc") for each in names)
    assert list((tmp_path / "work").iterdir()) == []
    said = capsys.readouterr().out
    assert "installed tiny==1" in said and "uploaded the layer" in said


def test_one_line_says_why_there_is_none(building, store, tmp_path, capsys):
    store.answers = [403]
    wheel(tmp_path / "package")
    found = environment(tmp_path, store, "--no-index\n./tiny-1-py3-none-any.whl")
    assert building.main(found) == 1
    assert (tmp_path / "message").read_text() == "the package store refused the layer: no: 403"
    found["FAASLITE_REQUIREMENTS"] = "# from requirements.txt\n--no-index\nno-such-thing-of-ours"
    assert building.main(found) == 1
    message = (tmp_path / "message").read_text()
    assert message.startswith(
        "requirements.txt: Could not find a version that satisfies the requirement no-such-thing-of-ours"
    )
    assert f"wheels for Python {sys.version_info.major}.{sys.version_info.minor} on Linux" in message
    assert "\n" not in message and len(store.got) == 1
    assert f"error: {message}" in capsys.readouterr().out
    assert list((tmp_path / "work").iterdir()) == []


def test_the_installer_is_the_nodes_or_the_images(building, tmp_path):
    assert building.find_tool({"FAASLITE_INSTALLER": "/opt/uv"}, tmp_path / "tools") == ["/opt/uv"]
    (tmp_path / "elsewhere" / "pip").mkdir(parents=True)
    found = building.find_tool({"FAASLITE_INSTALLER": str(tmp_path / "elsewhere" / "pip")}, tmp_path / "tools")
    assert found == [sys.executable, "-I", str(tmp_path / "tools" / "pip")]
    assert (tmp_path / "tools" / "pip").resolve() == tmp_path / "elsewhere" / "pip"


NPM = """
import pathlib, sys

print("npm is told", *sys.argv[1:])
if not pathlib.Path("package.json").exists() or "bad" in pathlib.Path("package.json").read_text():
    sys.exit("npm error code E404\\nnpm error 404 Not Found - GET https://npm/bad\\nnpm error A complete log of this run can be found in: x")
for name in ("a/package.json", ".bin/a", ".package-lock.json"):
    file = pathlib.Path("node_modules", name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("{}")
"""


def test_modules_of_node_functions(building, store, tmp_path, capsys):
    package = tmp_path / "package"
    package.mkdir()
    (package / "package.json").write_text('{"dependencies": {"a": "1"}}')
    (package / "package-lock.json").write_text("{}")
    (tmp_path / "npm.py").write_text(NPM)
    lines = [f"./{each.name} {building.file_digest(each)}" for each in sorted(package.iterdir())]
    found = environment(tmp_path, store, "\n".join(["# from package.json", *lines]))
    found |= {
        "FAASLITE_RUNTIME": "node20",
        "FAASLITE_NODE": sys.executable,
        "FAASLITE_INSTALLER": str(tmp_path / "npm.py"),
    }
    assert building.main(found) == 0, capsys.readouterr().out
    ((_, _, body),) = store.got
    with tarfile.open(fileobj=io.BytesIO(body), mode="r:gz") as tar:
        assert tar.getnames() == ["a/package.json"]
    assert "npm is told ci --omit=dev" in capsys.readouterr().out
    (package / "package.json").write_text('{"dependencies": {"bad": "1"}}')
    assert building.main(found) == 1
    said = "package.json: package.json of the package isn't the one that is required; deploy again"
    assert (tmp_path / "message").read_text() == said
    found["FAASLITE_REQUIREMENTS"] = (
        f"# from package.json\n./package.json {building.file_digest(package / 'package.json')}"
    )
    assert building.main(found) == 1
    assert (tmp_path / "message").read_text() == "package.json: code E404; 404 Not Found - GET https://npm/bad"
    found["FAASLITE_REQUIREMENTS"] = "./../secret sha256:0"
    assert building.main(found) == 1
    assert "is no file that npm reads" in (tmp_path / "message").read_text()
