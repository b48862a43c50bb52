"""Finding the handler in a folder by reading it, never by running it, so that mistakes show before anything is sent."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

from faaslite.build.errors import BuildError

__all__ = ["ATTRIBUTES", "MODULES", "find_handler", "module_file"]

MODULES = ("handler", "app", "main", "index")
"""Modules that are looked at, in this order; a folder with one `.py` file needs no such name."""
ATTRIBUTES = ("handle", "handler", "app", "application", "main")


def find_handler(source: Path, asked: str = "") -> str:
    """`module:attribute` of the handler in a folder or a single file.

    `asked` is what the user said (`module:attribute` or `module`), checked against the code. Raises BuildError for a
    syntax error, a module or attribute that isn't there, and where there is nothing to choose or too much.
    """
    module, _, attribute = asked.partition(":")
    path = module_file(source, module) if module else _guess_module(source)
    module = module or path.stem
    if not all(each.isidentifier() for each in module.split(".")):
        raise BuildError(f"{path.name} can't be imported by Python: name it with letters, digits and _ alone")
    names = _top_level_names(path)
    if attribute:
        if names is not None and attribute.split(".")[0] not in names:
            raise BuildError(f"{path.name} has no {attribute!r} (asked for as {asked!r}); it defines {_listed(names)}")
        return f"{module}:{attribute}"
    found = [each for each in ATTRIBUTES if names is None or each in names]
    if not found:
        raise BuildError(
            f"{path.name} has no handler: define `def handle(event, context)`, or say which with --handler {module}:NAME; "
            f"it defines {_listed(names or set())}"
        )
    return f"{module}:{found[0]}"


def module_file(source: Path, module: str) -> Path:
    """The file of a module in a folder, or the file itself. Raises BuildError."""
    if source.is_file():
        if source.stem != module:
            raise BuildError(f"the handler's module {module!r} is not {source.name}")
        return source
    base = source.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    raise BuildError(
        f"the handler's module {module!r} is not in {source}: there is no {base.with_suffix('.py').relative_to(source)}"
    )


def _guess_module(source: Path) -> Path:
    if source.is_file():
        if source.suffix != ".py":
            raise BuildError(f"{source} is not a Python file; a function is a .py file or a folder with one")
        return source
    if not source.is_dir():
        raise BuildError(f"{source} doesn't exist")
    for each in MODULES:
        path = source / f"{each}.py"
        if path.is_file():
            return path
    modules = sorted(each for each in source.glob("*.py") if each.stem not in ("setup", "conftest", "__init__"))
    if len(modules) == 1:
        return modules[0]
    if not modules:
        raise BuildError(f"{source} has no Python file; `faas init` makes a function to start from")
    raise BuildError(
        f"{source} has several modules ({_listed({each.stem for each in modules})}); say which with --handler MODULE:NAME"
    )


def _top_level_names(path: Path) -> set[str] | None:
    """What a module defines or imports at its top level; None where `import *` makes that unknowable."""
    try:
        tree = ast.parse(path.read_bytes(), str(path.name))
    except SyntaxError as error:
        where = f"{path.name}:{error.lineno}" if error.lineno else path.name
        raise BuildError(f"{where}: {error.msg}") from error
    except ValueError as error:
        raise BuildError(f"{path.name} can't be read as Python: {error}") from error
    names: set[str] = set()
    return names if _collect(tree.body, names) else None


def _collect(body: Sequence[ast.stmt], names: set[str]) -> bool:
    """Add what these statements bind in their own scope; False where `import *` hides what that is."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any(each.name == "*" for each in node.names):
                return False
            names.update((each.asname or each.name).split(".")[0] for each in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            blocks = [getattr(node, inner, ()) for inner in ("body", "orelse", "finalbody")]
            blocks += [each.body for each in getattr(node, "handlers", ())]
            if not all(_collect(block, names) for block in blocks):
                return False
    return True


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)[:12]) or "nothing"
