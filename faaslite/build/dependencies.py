"""What a function's code asks to have installed: inline script metadata, requirements.txt, pyproject.toml, package.json."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faaslite.api.layers import FROM, REQUIRES_PYTHON
from faaslite.build.errors import BuildError

__all__ = ["Dependencies", "declared_text", "dependencies_of", "requirements_of"]

_INDEXES = ("-i ", "--index-url", "--extra-index-url", "-f ", "--find-links", "--trusted-host")
"""Lines of a requirements file that name places of the machine that installs."""
_INLINE = re.compile(r"(?m)^# /// script\r?\n(?P<content>(?:^#(?:| .*)\r?\n)+?)^# ///\s*?$")
"""PEP 723, without its other types of blocks."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """`text` is one requirement a line (for node: package.json); `source` names the file for messages, `folder` is where it lies."""

    text: str
    source: str
    folder: Path
    python: str = ""
    """`requires-python`, as written."""


def dependencies_of(source: Path, module: Path | None, runtime: str = "python") -> Dependencies | None:
    """The first of: script metadata in the handler's `module`, requirements.txt, pyproject.toml; package.json for node.

    `source` is the folder or the file that is deployed; a file brings only what stands in itself. Raises BuildError.
    """
    folder = source if source.is_dir() else source.parent
    if runtime.startswith("node"):
        return _package_json(source) if source.is_dir() else None
    if module is not None and (inline := _inline(module)) is not None:
        return Dependencies(
            "\n".join(_texts(inline, "dependencies", module.name)),
            module.name,
            folder,
            str(inline.get("requires-python", "")),
        )
    if not source.is_dir():
        return None
    if text := requirements_of(source):
        return Dependencies(text, "requirements.txt", folder)
    project = source / "pyproject.toml"
    if project.exists():
        table = _toml(project.read_text(), "pyproject.toml").get("project") or {}
        if lines := _texts(table, "dependencies", "pyproject.toml"):
            return Dependencies("\n".join(lines), "pyproject.toml", folder, str(table.get("requires-python", "")))
    return None


def declared_text(wanted: Dependencies, source: Path) -> str:
    """For `spec.package.requirements`: paths are made relative to the package, which is all that a build in the cluster has of this machine.

    Raises BuildError for a path that isn't in it.
    """
    folder = source.resolve() if source.is_dir() else None

    def inside(path: str) -> str:
        found = Path(path).resolve()
        if folder is None or not found.is_relative_to(folder):
            raise BuildError(
                f"{wanted.source}: {path} is not in the folder that is deployed, and the cluster, which builds the dependencies, has "
                "nothing else of this machine: copy it in, or deploy with --build local"
            )
        return f"./{found.relative_to(folder).as_posix()}"

    def portable(line: str) -> str:
        *before, last = line.split(" ")
        path = last.removeprefix("file://") if last.startswith(("file:///", "/")) else ""
        if not path or line.startswith(_INDEXES):
            return line
        if before[-1:] == ["@"]:  # a name with a URL, which has to be a whole one
            extras = re.search(r"\[.*\]", before[0])
            return inside(path) + (extras[0] if extras else "")
        return " ".join([*before, inside(path)])

    lines = map(portable, wanted.text.splitlines())
    head = [f"{FROM}{wanted.source}", *([f"{REQUIRES_PYTHON}{wanted.python}"] if wanted.python else [])]
    return "\n".join([*head, *lines])


def requirements_of(source: Path) -> str:
    """The requirements of a folder, comments and blank lines left out, paths made absolute; "" where it has none."""
    file = source / "requirements.txt"
    if not source.is_dir() or not file.exists():
        return ""
    return "\n".join(_lines(file, 0))


def _lines(file: Path, depth: int) -> list[str]:
    """With the files that it includes (`-r`, `-c`) in place of the lines that name them."""
    try:
        text = file.read_text().replace("\\\n", " ")
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{file} can't be read: {error}") from error
    found: list[str] = []
    for raw in text.splitlines():
        line = raw.split(" #", 1)[0].strip()
        option, _, rest = line.partition(" ")
        if not line or line.startswith("#"):
            continue
        if option in ("-r", "--requirement") and depth < 8:
            found += _lines(file.parent / rest.strip(), depth + 1)
        elif option in ("-c", "--constraint"):
            found.append(f"-c {(file.parent / rest.strip()).resolve()}")
        elif line.startswith(("./", "../")):
            found.append(str((file.parent / line).resolve()))
        else:
            found.append(line)
    return found


def _inline(module: Path) -> dict[str, Any] | None:
    matches = list(_INLINE.finditer(module.read_text(errors="replace")))
    if not matches:
        return None
    if len(matches) > 1:
        raise BuildError(f"{module.name} has several blocks `# /// script`; there may be one")
    lines = matches[0]["content"].splitlines()
    return _toml(
        "\n".join(each[2:] if each.startswith("# ") else each[1:] for each in lines), f"{module.name} (script metadata)"
    )


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BuildError(f"{name}: {error}") from error


def _texts(table: dict[str, Any], key: str, name: str) -> list[str]:
    found = table.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise BuildError(f"{name}: {key} must be a list of requirements")
    return found


def _package_json(source: Path) -> Dependencies | None:
    file = source / "package.json"
    if not file.exists():
        return None
    try:
        document = json.loads(file.read_text())
        wanted = {**document.get("dependencies", {}), **document.get("optionalDependencies", {})}
    except (ValueError, AttributeError, TypeError) as error:
        raise BuildError(f"package.json: {error}") from error
    return Dependencies(file.read_text(), "package.json", source) if wanted else None
