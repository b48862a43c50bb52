"""What the platform's processes hold of others' packages: each costs every one of them its share of memory."""

import json
import subprocess
import sys

UNWANTED = {
    "cli",
    "click",
    "docker",
    "multiprocessing.context",
    "opentelemetry",
    "redis",
    "rich",
    "typer",
    "uvicorn.main",
}


def run(code: str) -> str:
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=True).stdout


def test_the_supervisor_imports_no_command_lines_and_nothing_that_is_asked_for_by_a_flag():
    code = "import sys, json, faaslite.launch.__main__, faaslite.launch.plan; print(json.dumps(list(sys.modules)))"
    found = set(json.loads(run(code)))
    assert "uvicorn.config" in found
    assert not found & UNWANTED


def test_who_asks_uvicorn_for_more_gets_it():
    assert (
        run("import core.serving, uvicorn; print(uvicorn.Server.__name__, uvicorn.__version__ != '')")
        == "Server True\n"
    )
    assert run("import uvicorn, core.serving; print(uvicorn.Server.__name__)") == "Server\n"
