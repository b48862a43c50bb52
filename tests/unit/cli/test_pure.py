"""What commands decide before they speak to anybody."""

from typing import Any

import pytest
from typer.testing import CliRunner

from cli.deploy import readiness, same_but_code
from cli.errors import Unreachable, Usage, exit_code
from cli.gateway import Gateway
from cli.output import duration
from cli.root import app
from core.errors import Conflict, FaasliteError, NotFound, ServiceUnavailable
from faaslite.build.errors import BuildError
from faaslite.build.manifest import read_manifest
from faaslite.build.plan import function_name, merge_specs


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (190, "3m10s"),
        (3600, "60m"),
        (4 * 3600 + 120, "4h2m"),
        (90000, "25h"),
        (300000, "3d11h"),
    ],
)
def test_durations_read_as_kubectl_prints_them(seconds, text):
    assert duration(seconds) == text


def test_names_come_from_flag_file_or_folder(tmp_path):
    folder = tmp_path / "my-fn"
    folder.mkdir()
    assert function_name(folder, "", "") == "my-fn"
    assert function_name(folder, "", "declared") == "declared"
    assert function_name(folder, "flag", "declared") == "flag"
    file = folder / "one.py"
    file.write_text("")
    assert function_name(file, "", "") == "one"
    for bad in ("My_Fn", "-x", "x" * 51, "a.b"):
        with pytest.raises(BuildError, match="--name"):
            function_name(folder, bad, "")


def test_flags_lie_on_top_of_the_file():
    base = {"scale": {"min": 1, "max": 5}, "env": [{"name": "A"}], "timeout": "1s"}
    assert merge_specs(base, {"scale": {"max": 9}, "env": []}) == {
        "scale": {"min": 1, "max": 9},
        "env": [],
        "timeout": "1s",
    }
    assert base["scale"] == {"min": 1, "max": 5}


def test_function_file(tmp_path):
    assert read_manifest(tmp_path) == {}
    file = tmp_path / "function.yaml"
    file.write_text("metadata: {name: x}\nspec: {timeout: 1s}")
    assert read_manifest(tmp_path)["name"] == "x"
    for text, message in (("a: [", "function.yaml"), ("- a", "must be a map"), ("nmae: x", "'nmae' is not known")):
        file.write_text(text)
        with pytest.raises(BuildError, match=message):
            read_manifest(tmp_path)


def function(observed, ready=None, message=""):
    conditions = [{"type": "Ready", "status": ready, "message": message}] if ready else []
    return {"status": {"observedGeneration": observed, "conditions": conditions}}


def test_readiness_is_of_the_generation_that_was_applied():
    assert readiness(function(1, "True"), 2) == (None, "")
    assert readiness(function(2, "True"), 2) == (True, "")
    assert readiness(function(2, "False", "ImportError: x"), 2) == (False, "ImportError: x")
    assert readiness(function(2, "Unknown", "starting"), 2) == (None, "starting")
    assert readiness({}, 1) == (None, "")


def test_exit_codes():
    assert exit_code(NotFound("x")) == 3
    assert exit_code(ServiceUnavailable("x")) == 4
    assert exit_code(Unreachable("x")) == 4
    assert exit_code(Conflict("x")) == 1
    assert exit_code(FaasliteError("x")) == 1
    assert exit_code(Usage("x")) == 2


def test_function_urls():
    gateway = Gateway("http://127.0.0.1:8080/")
    assert gateway.function_url("default", "a") == "http://127.0.0.1:8080/function/a"
    assert gateway.function_url("team", "a", "/x?y=1") == "http://127.0.0.1:8080/function/a.team/x?y=1"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["deploy", "--help"],
        ["up", "--help"],
        ["cron", "--help"],
        ["secret", "create", "--help"],
        ["logs", "-h"],
    ],
)
def test_help_says_something(arguments):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "Usage" in result.output


def test_without_a_cluster_every_command_says_how_to_start_one(tmp_path, monkeypatch):
    monkeypatch.setenv("FAASLITE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    for arguments in (
        ["list"],
        ["describe", "x"],
        ["status"],
        ["down"],
        ["kubeconfig"],
        ["cron", "list"],
        ["invoke", "x"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert isinstance(result.exception, FaasliteError), arguments
        assert "faas up" in str(result.exception)
        assert exit_code(result.exception) == 4


def test_init_makes_what_deploy_takes(tmp_path):
    result = CliRunner().invoke(app, ["init", str(tmp_path / "greeter")])
    assert result.exit_code == 0, result.output
    assert read_manifest(tmp_path / "greeter")["name"] == "greeter"
    again = CliRunner().invoke(app, ["init", str(tmp_path / "greeter")])
    assert isinstance(again.exception, Usage)


def test_kept_logs_are_read_from_their_cri_form() -> None:
    from cli.logs import plain_lines

    text = "T1 stdout F one\nT2 stderr P two \nT3 stderr F and more\nT4 stdout F \nT5 stdout P cut off\n"
    assert plain_lines(text) == ["one", "two and more", "", "cut off"]
    assert plain_lines(text, timestamps=True)[:2] == ["T1 one", "T2 two and more"]


def test_the_version_is_said_without_a_command() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert result.exit_code == 0 and result.output.startswith("faas 0.")


def built(asked: str, status: str = "", reason: str = "", seen: str = "1", upgraded: str = ""):
    """A Function of generation 1 that asks for a layer, with what its status says of the build."""
    from faaslite.api.layers import layer_key

    annotations = {"faaslite.dev/build-asked": asked, "faaslite.dev/resolved": upgraded}
    document = function(1, "False" if status == "False" else "True", "no such package")
    document["metadata"] = {"annotations": annotations}
    document["spec"] = {"package": {"requirements": "six"}}
    document["status"]["build"] = {"key": layer_key("python", "six"), "asked": seen}
    document["status"]["conditions"].append({"type": "Built", "status": status, "reason": reason})
    return document


def test_readiness_is_of_the_build_that_was_asked_for():
    assert readiness(built("1", "True", "LayerReady"), 1) == (True, "")
    assert readiness(built("1", "False", "BuildFailed"), 1) == (False, "no such package")
    assert readiness(built("2", "False", "BuildFailed"), 1) == (None, "")  # of the last time
    assert readiness(built("1", "True", "LayerReady", upgraded="now"), 1) == (None, "")


def test_a_deploy_asks_again_for_what_failed_and_resolves_anew_where_told():
    from cli.builds import annotations_for

    asked, resolved = "faaslite.dev/build-asked", "faaslite.dev/resolved"
    assert set(annotations_for(None, fresh=False)) == {asked}
    assert set(annotations_for(built("1", "False"), fresh=False)) == {asked}
    assert annotations_for(built("1", "True"), fresh=False) == {}
    assert set(annotations_for(built("1", "True"), fresh=True)) == {resolved}


def test_what_the_cluster_has_taken_is_the_same_but_for_its_code() -> None:
    has = {"concurrency": 4, "handler": "a:b", "package": {"digest": "1", "requirements": "numpy"}}
    asked: list[str] = []

    def known(namespace: str, name: str) -> dict[str, Any]:
        asked.append(f"{namespace}/{name}")
        return has if name == "known" else {}

    same = same_but_code(known)

    def document(name: str = "known", **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": "team"}, "spec": {"concurrency": 4, **spec}}

    assert same(document())
    assert same(document(handler="other:b", package={"digest": "2", "requirements": "numpy"}))
    assert not same(document(package={"digest": "2", "requirements": "numpy\nscipy"}))
    assert not same(document(concurrency=5))
    assert not same(document(timeout="1s"))
    assert not same(document("new"))
    assert asked == ["team/known", "team/new"]  # once each
