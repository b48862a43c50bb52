"""What building a layer is wherever it happens: the installer's command, the reason in what it said, what lies in a layer.

The standard library alone is imported here: build Pods carry a copy of this file (`runtime-images/python/installing.py`), equal byte for byte.
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BUILD_SECONDS", "LOCKS", "NPM_FILES", "compile_layer", "installed", "installer", "npm_arguments", "npm_reason", "prune_modules", "reason"]  # fmt: skip

BUILD_SECONDS = 900.0
LOCKS = ("package-lock.json", "npm-shrinkwrap.json")
NPM_FILES = ("package.json", *LOCKS, ".npmrc")
"""What npm reads of a package."""


def installer(tool: Sequence[str], listed: str, target: str, python: str, *, own: str = "") -> list[str]:
    """The command that installs the requirements in the file `listed` into the folder `target`, for the Python given (`3.12`).

    `tool` is how uv or pip is called; `own` the interpreter, where the Python is that of this machine. Only wheels: code of packages
    doesn't run here, and they fit the runtime. (Folders that are named by a path are built.)
    """
    files = ["--target", target, "--requirement", listed]
    if Path(tool[0]).name == "uv":
        which = ["--python", own] if own else ["--python-version", python]
        return [*tool, "pip", "install", "--no-build", "--no-config", *which, *files]
    command = [
        *tool, "install", "--disable-pip-version-check", "--no-input", "--no-compile", "--progress-bar", "off",
        "--only-binary", ":all:",
    ]  # fmt: skip
    if not own:
        machine = platform.machine()
        tags = [f"manylinux_2_{minor}_{machine}" for minor in (34, 31, 28, 27, 24, 17)] + [f"manylinux2014_{machine}"]
        command += ["--implementation", "cp", "--python-version", python, *(f"--platform={each}" for each in tags)]
    return [*command, *files]


def reason(tail: Sequence[str], python: str) -> str:
    """One line from the installer's last ones."""
    text = "\n".join(tail)
    if "No module named pip" in text:
        return "needs uv or pip, and there is neither; install one of them and deploy again"
    errors = [each.removeprefix("ERROR: ") for each in tail if each.startswith("ERROR: ")]
    if not errors:  # uv's are a tree below `error:` or a cross
        start = next((at for at, each in enumerate(tail) if re.match(r"\s*(error:|×|x )", each)), len(tail) - 8)
        errors = [" ".join(" ".join(each.strip(" ×x╰─▶├│\t") for each in tail[max(start, 0) :]).split())]
    if errors == ["Exception:"]:  # pip's own, whose traceback ends with what it was
        errors = [next((each.strip() for each in reversed(tail) if each.strip()), "")]
    found = "; ".join(dict.fromkeys(errors))
    if re.search(r"No matching distribution|not a supported wheel|no wheels|no usable wheels|No solution found", found):
        found += f"; wheels for Python {python} on Linux {platform.machine()} are looked for"
        if "from versions: none" in found:
            found += ", and there is no such package, or it has none"
    return found[:1500]


def npm_arguments(locked: bool) -> list[str]:
    """What npm is told in a folder with a `package.json`; `locked` where a lock file lies beside it."""
    return [
        "ci" if locked else "install", "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--color=false",
    ]  # fmt: skip


def npm_reason(tail: Sequence[str]) -> str:
    """npm's error lines, without where it keeps its own log."""
    errors = [re.sub(r"^npm (error|ERR!) ?", "", each).strip() for each in tail if re.match(r"npm (error|ERR!)", each)]
    useful = [
        each for each in errors if each and "complete log of this run" not in each and not each.endswith("-debug-0.log")
    ]
    return ("; ".join(dict.fromkeys(useful)) or "; ".join(tail[-5:]) or "npm failed")[:1000]


def prune_modules(modules: Path) -> list[str]:
    """Take from a `node_modules` what functions have no use for; `name@version` of what stays, at most 500."""
    shutil.rmtree(modules / ".bin", ignore_errors=True)
    (modules / ".package-lock.json").unlink(missing_ok=True)
    found = []
    for each in modules.glob("**/package.json"):
        name = each.parent.relative_to(modules).as_posix()
        try:
            version = json.loads(each.read_bytes()).get("version")
        except (ValueError, OSError, AttributeError):
            version = None
        if version:  # folders of a package may have such a file, without one
            found.append(f"{name}@{version}")
    return sorted(found)[:500]


def installed(target: Path) -> list[str]:
    """`name==version` of what lies in a layer."""
    found = []
    for each in target.glob("*.dist-info"):
        name, _, version = each.name.removesuffix(".dist-info").rpartition("-")
        found.append(f"{name.lower().replace('_', '-')}=={version}")
    return sorted(found)


def compile_layer(target: Path, python: str, jobs: int = 1) -> None:
    """Layers are read-only where they are used, so what would be compiled at each import is compiled now, by the interpreter `python`.

    `jobs` 0 is one for each processor, which needs shared memory.
    """
    command = [python, "-I", "-m", "compileall", "-q", "-j", str(jobs), "--invalidation-mode", "unchecked-hash", "-s", str(target), str(target)]  # fmt: skip
    # Files that can't be compiled are those that a package never imports, such as templates.
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=BUILD_SECONDS)
