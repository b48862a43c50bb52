"""The functions that a file declares with `@function(...)`, found by reading it, never by running it."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faaslite import sdk
from faaslite.build.errors import BuildError

__all__ = ["Declared", "declared_in", "local_modules"]

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
}


@dataclass(frozen=True, slots=True)
class Declared:
    """One decorated function: its name on the platform, `module:attribute`, and the `spec` that its decorator says."""

    name: str
    handler: str
    spec: dict[str, Any]
    where: str


def declared_in(source: Path) -> list[Declared]:
    """What the file, or the modules at the top of the folder, declare, in the order of the text.

    Raises BuildError, with file and line, for a file that isn't Python, an argument that can't be known without running the
    code, and a name that two functions have.
    """
    files = [source] if source.is_file() else sorted(source.glob("*.py"))
    found = [each for file in files if file.suffix == ".py" for each in _Module(file).functions()]
    seen: dict[str, Declared] = {}
    for each in found:
        if (other := seen.setdefault(each.name, each)) is not each:
            raise BuildError(
                f"{each.where}: the function {each.name!r} is declared at {other.where} already; give one another name="
            )
    return found


def local_modules(file: Path) -> list[Path]:
    """The files and packages beside `file` that it imports, and those that these import: they travel with it."""
    found: dict[Path, None] = {}
    pending = [file]
    while pending:
        for name in _imported(pending.pop()):
            for path in (file.parent / f"{name}.py", file.parent / name):
                package = path.is_dir() and (path / "__init__.py").is_file()
                if (path.is_file() or package) and path != file and path not in found:
                    found[path] = None
                    pending += sorted(path.rglob("*.py")) if package else [path]
    return sorted(found)


def _imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(_parse(file)):
        if isinstance(node, ast.Import):
            names.update(each.name.partition(".")[0] for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes(), file.name)
    except SyntaxError as error:
        raise BuildError(f"{file.name}:{error.lineno}: {error.msg}") from error
    except (ValueError, OSError) as error:
        raise BuildError(f"{file.name} can't be read as Python: {error}") from error


class _Module:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._tree = _parse(file) if b"faaslite" in file.read_bytes() else ast.Module(body=[], type_ignores=[])
        self._names: dict[str, str] = {}
        self._modules: set[str] = set()
        self._constants: dict[str, ast.expr] = {}
        for node in self._tree.body:
            if isinstance(node, ast.Import):
                self._modules.update(each.asname or each.name for each in node.names if each.name == "faaslite")
            elif isinstance(node, ast.ImportFrom) and node.module == "faaslite" and not node.level:
                self._names.update({each.asname or each.name: each.name for each in node.names})
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self._constants[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
                self._constants[node.target.id] = node.value

    def functions(self) -> list[Declared]:
        found = []
        for node in self._tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for each in node.decorator_list:
                    call = each if isinstance(each, ast.Call) else None
                    if self._known(call.func if call else each) == "function":
                        found.append(self._declared(node, call))
        return found

    def _declared(self, node: ast.FunctionDef | ast.AsyncFunctionDef, call: ast.Call | None) -> Declared:
        where = self._at(call or node)
        arguments: dict[str, Any] = {}
        for each in call.keywords if call else ():
            if each.arg is None:
                raise BuildError(
                    f"{where}: @function(**...) can't be known without running the file; write its arguments out"
                )
            arguments[each.arg] = self._value(each.value, f"{each.arg}= of @function")
        if call and call.args:
            raise BuildError(f"{where}: @function takes keywords only, such as name=, cron= or memory=")
        name = arguments.pop("name", "") or node.name.strip("_").lower().replace("_", "-")
        try:
            spec = sdk.spec_of(**arguments)
        except TypeError as error:
            raise BuildError(f"{where}: @function: {str(error).removeprefix('spec_of() ')}") from error
        return Declared(str(name), f"{self._file.stem}:{node.name}", spec, where)

    def _known(self, node: ast.expr) -> str:
        """The name in `faaslite` that an expression is, "" where it is none."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, "")
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in self._modules:
            return node.attr
        return ""

    def _value(self, node: ast.expr, what: str, seen: Sequence[str] = ()) -> Any:
        """A literal, a constant of the module, an environment variable, Secret(...) or Cron(...)."""

        def again(each: ast.expr) -> Any:
            return self._value(each, what, seen)

        match node:
            case ast.Constant():
                return node.value
            case ast.List() | ast.Tuple():
                return [again(each) for each in node.elts]
            case ast.Dict() if all(key is not None for key in node.keys):
                return {again(key): again(value) for key, value in zip(node.keys, node.values, strict=True) if key}
            case ast.UnaryOp(op=ast.USub()):
                return -again(node.operand)
            case ast.BinOp() if type(node.op) in _OPERATORS:
                try:
                    return _OPERATORS[type(node.op)](again(node.left), again(node.right))
                except TypeError as error:
                    raise BuildError(f"{self._at(node)}: {what}: {error}") from error
            case ast.JoinedStr():
                return "".join(str(again(each)) for each in node.values)
            case ast.FormattedValue(conversion=-1, format_spec=None):
                return again(node.value)
            case ast.Name() if node.id in self._constants and node.id not in seen:
                return self._value(self._constants[node.id], what, (*seen, node.id))
            case ast.Call() if self._known(node.func) in ("Secret", "Cron"):
                return self._object(node, what, seen)
            case ast.Call(func=ast.Attribute(attr="get" | "getenv")) if _is_environ(node.func) and node.args:
                return os.environ.get(again(node.args[0]), again(node.args[1]) if len(node.args) > 1 else None)
            case ast.Subscript() if _is_environ(node.value):
                name = again(node.slice)
                if name not in os.environ:
                    raise BuildError(f"{self._at(node)}: {what}: the environment has no {name}")
                return os.environ[name]
        text = ast.unparse(node)
        raise BuildError(
            f"{self._at(node)}: {what} can't be known without running the file: {text[:80]}; write a literal, a constant of the "
            "file, os.environ.get(...), or say it in function.yaml"
        )

    def _object(self, node: ast.Call, what: str, seen: Sequence[str]) -> Any:
        kind = sdk.Secret if self._known(node.func) == "Secret" else sdk.Cron
        arguments = [self._value(each, what, seen) for each in node.args]
        named = {each.arg: self._value(each.value, what, seen) for each in node.keywords if each.arg}
        try:
            return kind(*arguments, **named)
        except TypeError as error:
            raise BuildError(f"{self._at(node)}: {kind.__name__}: {str(error).partition('() ')[2] or error}") from error

    def _at(self, node: ast.AST) -> str:
        return f"{self._file.name}:{getattr(node, 'lineno', 0)}"


def _is_environ(node: ast.expr) -> bool:
    return ast.unparse(node) in ("os.environ", "environ", "os.environ.get", "environ.get", "os.getenv", "getenv")
