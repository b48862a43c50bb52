"""Layers that are built in the cluster: what one is known by, and what is read of it from a Function's document.

`spec.package.requirements` is text as in `requirements.txt`; for node a line `./NAME sha256:DIGEST` for each file of the package that npm reads. Two comments have a meaning: `# from NAME`, the file that messages name, and
`# requires-python: SPEC`. Paths begin with `./` and lie in the package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from faaslite.api.names import ANNOTATION_BUILD_ASKED, ANNOTATION_RESOLVED

__all__ = ["FROM", "REQUIRES_PYTHON", "Wanted", "layer_key", "paths_in", "wanted_layer"]

FROM = "# from "
REQUIRES_PYTHON = "# requires-python: "


@dataclass(frozen=True, slots=True)
class Wanted:
    """The layer that a Function needs. What failed for the same `asked` isn't tried again."""

    key: str
    asked: str = ""


def paths_in(requirements: str) -> bool:
    """Whether what is installed depends on the package's own files."""
    return any(word.startswith("./") for line in requirements.splitlines() for word in line.split())


def layer_key(runtime: str, requirements: str, digest: str = "", resolved: str = "") -> str:
    """32 hex digits, for a layer of `runtime` (as in the spec). `digest` is the package's, which counts where requirements name paths in it
    without saying what lies there;
    `resolved` tells one resolution of the same requirements from another."""
    lines = [each for each in requirements.splitlines() if not each.startswith(FROM)]
    named = paths_in(requirements) and not runtime.startswith("node")
    parts = (runtime, digest if named else "", resolved, *lines)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def wanted_layer(metadata: Mapping[str, Any], spec: Any) -> Wanted | None:
    """From a stored Function, whose spec may be invalid; None where nothing is to be built for it."""
    package = spec.get("package") if isinstance(spec, Mapping) else None
    text = package.get("requirements") if isinstance(package, Mapping) else None
    if not isinstance(text, str) or not text.strip() or not isinstance(package, Mapping):
        return None
    annotations = metadata.get("annotations") or {}
    runtime, digest = str(spec.get("runtime") or "python"), str(package.get("digest") or "")
    key = layer_key(runtime, text, digest, str(annotations.get(ANNOTATION_RESOLVED) or ""))
    return Wanted(key, str(annotations.get(ANNOTATION_BUILD_ASKED) or ""))
