"""`function.yaml`: what stands beside the code, with `${NAME}` and `${NAME:-default}` from the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from faaslite.build.errors import BuildError

__all__ = ["FUNCTION_FILE", "read_manifest"]

FUNCTION_FILE = "function.yaml"
_KEYS = {"name", "spec", "functions", "apiVersion", "kind", "metadata"}
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?-)([^}]*))?\})")


def read_manifest(path: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """`name` and `spec` (or a whole Function document), and `functions`: specs by name for the functions that a file declares.

    `path` is the folder, or a file whose folder is not looked at. Raises BuildError, with the line where one is known.
    """
    file = path / FUNCTION_FILE
    if not path.is_dir() or not file.exists():
        return {}
    text = _substituted(file, os.environ if environment is None else environment)
    try:
        found = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise BuildError(f"{file}: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not isinstance(found.get("spec") or {}, dict):
        raise BuildError(f"{file} must be a map with the keys name and spec")
    unknown = sorted(str(each) for each in set(found) - _KEYS)
    if unknown:
        raise BuildError(f"{file}: {unknown[0]!r} is not known here; there are name, spec and functions")
    if "metadata" in found:
        found["name"] = (found["metadata"] or {}).get("name", "")
    more = found.get("functions") or {}
    if not isinstance(more, dict) or not all(isinstance(each, dict) for each in more.values()):
        raise BuildError(f"{file}: functions must be a map of names to specs")
    return found


def substitute(text: str, environment: Mapping[str, str]) -> str:
    """`text` with its variables; `$$` is a dollar. Raises KeyError, with the name, for one that is not set and has no default."""

    def value(match: re.Match[str]) -> str:
        name, operator, default = match.groups()
        if name is None:
            return "$"
        if operator is None:
            return environment[name]
        found = environment.get(name)
        return default if found is None or (operator == ":-" and not found) else found

    return _VARIABLE.sub(value, text)


def _substituted(file: Path, environment: Mapping[str, str]) -> str:
    """The file's text with its variables, before it is read as YAML: `max: ${MAX:-20}` is a number. Comments stay as they are."""
    lines = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            lines.append(line if line.lstrip().startswith("#") else substitute(line, environment))
        except KeyError as error:
            name = error.args[0]
            raise BuildError(
                f"{file}:{number}: {name} is not set in the environment; write ${{{name}:-default}}"
            ) from None
    return "\n".join(lines)
