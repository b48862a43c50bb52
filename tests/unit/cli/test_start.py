"""How the command begins: what it lists, and what it doesn't import for that."""

import contextlib
import io
import json
import os
import subprocess
import sys
from importlib.metadata import version

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from cli import help as help_page
from cli import main as entry
from cli.commands import COMMANDS, HELP_NAMES, OPTIONS, PURPOSE
from cli.options import Output
from cli.output import Format
from cli.root import app, load
from cli.values import lighten
from core import __version__

HEAVY = [
    "aiohttp", "annotationlib", "asyncio", "core.client", "cryptography", "faaslite", "importlib.metadata", "inspect", "msgspec", "pydantic", "rich",
    "ssl", "subprocess", "typer", "typing", "yaml",
]  # fmt: skip


def imported(*words: str, **environment: str) -> set[str]:
    """The modules that the process has at the end of such a command."""
    code = (
        "import sys, json, atexit\n"
        "sys.argv[0] = 'faas'\n"
        "atexit.register(lambda: sys.stderr.write('\\n' + json.dumps([name for name, module in sys.modules.items() if module])))\n"
        "from cli.main import main\n"
        "main()\n"
    )
    # Without site: what an environment's own .pth files import is nobody's here.
    command = [sys.executable, "-S", "-P", "-c", code, *words]
    path = os.pathsep.join(each for each in sys.path if each)
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path, **environment}, timeout=100
    )
    return set(json.loads(ended.stderr.splitlines()[-1]))


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--version"], []])
def test_the_help_and_the_version_import_nothing_heavy(words):
    found = imported(*words)
    assert not found & set(HEAVY)
    assert not [
        name for name in found if name.startswith("cli.") and name not in ("cli.main", "cli.commands", "cli.help")
    ]


def test_a_command_imports_no_other_and_its_values_need_no_pydantic(tmp_path):
    found = imported("list", "-n", "team", "-o", "json", FAASLITE_KUBECONFIG=str(tmp_path / "none"))
    assert "cli.functions" in found
    assert not found & {"pydantic", "rich", "importlib.metadata", *(f"cli.{module}" for _, module, _ in COMMANDS)} - {
        "cli.functions"
    }


def test_completion_of_a_command_imports_none():
    words = {"_FAAS_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "faas de"}
    found = imported(**words)
    assert "typer" in found
    assert not found & {"pydantic", "rich", "asyncio", *(f"cli.{module}" for _, module, _ in COMMANDS)}


def test_the_table_says_of_each_command_what_its_own_help_says():
    for name, module, text in COMMANDS:
        command = load(name)
        assert command.name == name, module
        assert not command.hidden
        assert " ".join((command.help or "").split("\n\n")[0].split()) == text


def test_every_command_of_a_module_is_in_the_table():
    listed = {name for name, _, _ in COMMANDS}
    for module in {module for _, module, _ in COMMANDS}:
        found = __import__(f"cli.{module}", fromlist=["app"])
        if not hasattr(found, "app"):
            holder = typer.Typer()
            found.register(holder)
            assert {each.name or each.callback.__name__ for each in holder.registered_commands} <= listed


def test_the_help_lists_the_roots_own_options():
    root = get_command(app)
    context = root.make_context("faas", [], resilient_parsing=True)
    params = root.get_params(context)
    assert [(", ".join(sorted(each.opts, key=len)), each.help) for each in params] == list(OPTIONS)
    assert root.help == PURPOSE


@pytest.mark.parametrize("columns", [10, 60, 80, 200])
def test_the_help_is_the_same_with_and_without_typer(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    quick = io.StringIO()
    with contextlib.redirect_stdout(quick):
        monkeypatch.setattr(sys, "argv", ["faas", "--help"])
        entry.main()
    whole = io.StringIO()
    with contextlib.redirect_stdout(whole), pytest.raises(SystemExit, match="0"):
        app(["--help"], prog_name="faas")
    assert quick.getvalue() == whole.getvalue()
    lines = quick.getvalue().splitlines()
    assert max(len(line) for line in lines) <= help_page.width_of(columns)
    assert {name for name, _, _ in COMMANDS} <= {line.split()[0] for line in lines if line.strip()}


@pytest.mark.parametrize(
    ("text", "room", "short"),
    [
        ("List functions.", 45, "List functions."),
        ("Start it. And more.", 45, "Start it."),
        ("one two three", 13, "one two three"),
        ("one two three", 12, "one two..."),
        ("one two three", 9, "one..."),
        ("ends just there. Or not", 16, "ends just there."),
    ],
)
def test_what_has_no_room_is_cut_at_a_word(text, room, short):
    assert help_page.shorten(text, room) == short


def test_without_a_word_the_help_goes_to_standard_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["faas"])
    with pytest.raises(SystemExit, match="2"):
        entry.main()
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith("Usage: faas ")


def test_the_version_is_the_distributions(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["faas", "--version"])
    entry.main()
    assert capsys.readouterr().out == f"faas {__version__}\n" == f"faas {version('faaslite')}\n"
    assert CliRunner().invoke(app, ["--version"]).stdout == f"faas {__version__}\n"


def test_a_command_that_there_is_not_is_answered_with_those_that_are_near():
    result = CliRunner().invoke(app, ["lits"])
    assert result.exit_code == 2
    assert "'list'" in result.output


def test_values_are_made_as_typer_makes_them(tmp_path):
    from pathlib import Path
    from typing import Annotated

    seen = []
    plain = typer.Typer(rich_markup_mode=None)

    @plain.command()
    def command(
        text: str,
        number: int = 0,
        least: Annotated[int, typer.Option(min=2)] = 5,
        share: float = 0.5,
        path: Path | None = None,
        words: Annotated[list[str] | None, typer.Option("--word")] = None,
        output: Output = Format.table,
        flag: bool | None = None,
    ) -> None:
        seen.append((text, number, least, share, path, words, output, flag))

    there = tmp_path / "file"
    there.write_text("")
    rows = [
        ["a"], ["a", "--number", "12"], ["a", "--number", "-3"], ["a", "--number", " 3 "], ["a", "--number", "x"], ["a", "--least", "1"],
        ["a", "--least", "3"], ["a", "--least", "2"], ["a", "--share", "2"], ["a", "--path", "nowhere"], ["a", "--path", ""], ["a", "--path", str(there)],
        ["a", "--word", "b", "--word", "c"], ["a", "-o", "json"], ["a", "-o", "JSON"], ["a", "-o", "no"], ["a", "--flag"], ["a", "--no-flag"], [],
    ]  # fmt: skip
    for words in rows:
        results = []
        for light in (False, True):
            seen.clear()
            made = get_command(plain)
            if light:
                lighten(made, made.make_context("x", ["a"], resilient_parsing=True))
            out = io.StringIO()
            with contextlib.redirect_stderr(out), pytest.raises(SystemExit) as ended:
                made(words, prog_name="x")
            results.append((list(seen), out.getvalue(), ended.value.code))
        assert results[0] == results[1], words


def test_the_names_of_the_help_are_the_same_everywhere():
    result = CliRunner().invoke(app, ["cron", "list", "-h"])
    assert result.exit_code == 0
    assert ", ".join(HELP_NAMES) in result.output
