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

    `path` is the folder, or a file whose folder is not looked at. Raises BuildError, with the line where there is one.
    """
    file = path / FUNCTION_FILE
    if not path.is_dir() or not file.exists():
        return {}
    loader = _loader(os.environ if environment is None else environment)
    try:
        found = yaml.load(file.read_text(), Loader=loader) or {}
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


def _loader(environment: Mapping[str, str]) -> type[yaml.SafeLoader]:
    """Variables in plain scalars become what they would be if their value stood there (`max: ${MAX:-20}` is a number); in quotes, text."""

    class Loader(yaml.SafeLoader):
        def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
            node = super().compose_scalar_node(anchor)
            if "$" in node.value:
                try:
                    replaced = substitute(node.value, environment)
                except KeyError as error:
                    raise yaml.composer.ComposerError(
                        None, None, f"{error.args[0]} is not set in the environment; write ${{{error.args[0]}:-default}}", node.start_mark,
                    ) from None  # fmt: skip
                if replaced != node.value and node.style is None:
                    node.tag = self.resolve(yaml.ScalarNode, replaced, (True, False))  # type: ignore[no-untyped-call]
                node.value = replaced
            found: yaml.ScalarNode = node
            return found

    return Loader
