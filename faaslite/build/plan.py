"""From a path and what is said about it to the Functions that a deploy writes: documents, packages, layers. Sends nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.api.meta import Document
from faaslite.build.archive import Archive, pack
from faaslite.build.declared import Declared, declared_in, local_modules
from faaslite.build.dependencies import declared_text, dependencies_of
from faaslite.build.errors import BuildError
from faaslite.build.handler import MODULES, find_handler, module_file
from faaslite.build.layer import Layer, layer_for
from faaslite.build.manifest import read_manifest
from faaslite.build.npm import declared_modules

__all__ = ["Asked", "Planned", "function_name", "merge_specs", "plan"]

_SCRIPTS = (".js", ".mjs", ".cjs")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Asked:
    """What flags say. `spec` lies on top of everything; `cache` and `logs` are folders; `fresh` resolves dependencies anew.

    `remote` says whether the cluster builds layers of a runtime: then the Functions say what they require. It is asked where there is something to
    build.
    """

    namespace: str = "default"
    name: str = ""
    handler: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)
    preview: bool = False
    fresh: bool = False
    cache: Path = Path("layers")
    logs: Path | None = None
    remote: Callable[[str], bool] = lambda _: False
    accepted: Callable[[Document], bool] = lambda _: False
    """Whether the cluster has taken just such a document, but for its code: then it needn't be checked, which is slow to begin with."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One Function, with what its spec's digests refer to."""

    document: Document
    archive: Archive | None = None
    layer: Layer | None = None

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])


def plan(path: Path, asked: Asked, progress: Callable[[str], None] = lambda _: None) -> list[Planned]:
    """The Functions of a folder or file. Installs dependencies where a layer isn't kept yet. Raises BuildError, FunctionInvalid."""
    if not path.exists():
        raise BuildError(f"{path} doesn't exist")
    if not _LABEL.fullmatch(asked.namespace):
        raise BuildError(f"{asked.namespace!r} can't be a namespace's name: use a-z, 0-9 and -")
    runtime_said = asked.spec.get("runtime")
    if path.is_file() and path.suffix not in (".py", *_SCRIPTS) and runtime_said != "image":
        raise BuildError(
            f"{path} is not code: a function is a Python or JavaScript file, or the folder that holds one with all it needs"
        )
    manifest = read_manifest(path)
    base: dict[str, Any] = merge_specs(manifest.get("spec") or {}, dict(asked.spec))
    runtime = str(base.get("runtime") or _guess_runtime(path))
    documents = []
    for name, spec in _functions(path, runtime, manifest, asked):
        if runtime != "python":
            spec["runtime"] = runtime
        metadata: Document = {"name": name, "namespace": asked.namespace}
        if asked.preview:
            spec, metadata = _previewed(spec, metadata)
        document = {"apiVersion": "faaslite.dev/v1", "kind": "Function", "metadata": metadata, "spec": spec}
        _check(document, asked)
        documents.append(document)
    return _packaged(path, documents, asked, progress)


def _check(document: Document, asked: Asked) -> None:
    """Raises FunctionInvalid."""
    if asked.accepted(document):
        return
    from faaslite.api.function import validate

    validate(document)


def _packaged(path: Path, documents: list[Document], asked: Asked, progress: Callable[[str], None]) -> list[Planned]:
    archive: Archive | None = None
    layers: dict[tuple[str, str, str], Layer] = {}
    found = []
    for document in documents:
        spec = document["spec"]
        runtime = str(spec.get("runtime", "python"))
        if runtime == "image":
            found.append(Planned(document))
            continue
        module = None
        if runtime.startswith("python"):
            spec["handler"] = find_handler(path, str(spec.get("handler") or ""))
            module = module_file(path, spec["handler"].partition(":")[0])
        if archive is None:
            archive = pack(path, also=local_modules(path) if path.is_file() and module is not None else ())
        spec["package"] = {"digest": archive.digest}
        layer = None
        wanted = dependencies_of(path, module, runtime)
        if wanted is not None and wanted.text.strip() and asked.remote(runtime):
            node = runtime.startswith("node")
            spec["package"]["requirements"] = declared_modules(wanted.folder) if node else declared_text(wanted, path)
        elif wanted is not None and wanted.text.strip():
            key = (runtime, wanted.text, wanted.python)
            layer = layers.get(key)
            if layer is None:
                layer = layers[key] = layer_for(
                    wanted, asked.cache, progress, runtime=runtime, logs=asked.logs, fresh=asked.fresh
                )
            spec["package"]["layer"] = layer.digest
        _check(document, asked)
        found.append(Planned(document, archive, layer))
    return found


def _functions(path: Path, runtime: str, manifest: Mapping[str, Any], asked: Asked) -> list[tuple[str, dict[str, Any]]]:
    """Names and specs: flags over `functions` of function.yaml over decorators over its `spec`."""
    base: dict[str, Any] = dict(manifest.get("spec") or {})
    named: Mapping[str, dict[str, Any]] = manifest.get("functions") or {}
    declared: list[Declared] = []
    if runtime.startswith("python") and not asked.handler and not base.get("handler"):
        declared = declared_in(path)
    if not declared and not named:
        spec = merge_specs(base, dict(asked.spec))
        if asked.handler:
            spec["handler"] = asked.handler
        return [(function_name(path, asked.name, str(manifest.get("name") or "")), spec)]
    specs = {each.name: merge_specs(base, {**each.spec, "handler": each.handler}) for each in declared}
    for name, over in named.items():
        if name not in specs and not over.get("handler"):
            raise BuildError(
                f"function.yaml: functions.{name} is not declared in the code, so it needs a handler: MODULE:NAME"
            )
        specs[name] = merge_specs(specs.get(name, base), over)
    if len(specs) == 1 and not named:
        only = next(iter(specs))
        specs = {asked.name or str(manifest.get("name") or "") or only: specs[only]}
    elif asked.name:
        if asked.name not in specs:
            raise BuildError(f"there is no function {asked.name!r}; there are {', '.join(specs)}")
        specs = {asked.name: specs[asked.name]}
    return [(function_name(path, name, ""), merge_specs(spec, dict(asked.spec))) for name, spec in specs.items()]


def _previewed(spec: dict[str, Any], metadata: Document) -> tuple[dict[str, Any], Document]:
    """The same beside what is deployed: under another name, never run by cron, at no route of its own, kept warm by nobody."""
    name = metadata["name"]
    spec = {key: value for key, value in spec.items() if key not in ("cron", "traffic")}
    spec["scale"] = {**(spec.get("scale") or {}), "min": 0}
    if "routes" in (spec.get("http") or {}):
        spec["http"] = {key: value for key, value in spec["http"].items() if key != "routes"}
    return spec, {
        **metadata,
        "name": function_name(Path(name), f"{name}-preview", ""),
        "labels": {"faaslite.dev/preview-of": name},
    }


def _guess_runtime(path: Path) -> str:
    if path.is_file():
        return "node" if path.suffix in _SCRIPTS else "python"
    names = {each.name for each in path.iterdir()} if path.is_dir() else set()
    if any(f"{each}.py" in names for each in MODULES):
        return "python"
    scripts = {f"{each}{suffix}" for each in MODULES for suffix in _SCRIPTS}
    return "node" if "package.json" in names or names & scripts else "python"


def function_name(path: Path, flag: str, declared: str) -> str:
    """The name by flag, by `function.yaml`, or by the folder. Raises BuildError for one that is no DNS label."""
    folder = path.resolve()
    name = flag or declared or (folder.stem if folder.suffix in (".py", *_SCRIPTS) else folder.name)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", name):
        raise BuildError(
            f"{name!r} can't be a function's name: use at most 50 of a-z, 0-9 and -, beginning and ending with a letter "
            "or digit; choose one with --name"
        )
    return name


def merge_specs(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, maps merged, lists and values replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge_specs(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
