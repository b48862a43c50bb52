"""Make `core/apiserver/data/descriptions.json.gz`: what the fields of the built-in types are for, and which values they may have.

    pip install --no-deps --target DIR kubernetes-validate
    python tools/make_descriptions.py --schemas DIR --go API_REPO

The texts are those of Kubernetes' own API documents (Apache-2.0, see NOTICE), as kubernetes-validate publishes them; `--go` names a
work tree or bare clone of kubernetes/api, whose types marked as enumerations say their values. Only types of
`schema.json.gz` are taken. `core/apiserver/descriptions.py` says the form.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path
from typing import Any

from make_schema import OUTPUT as SCHEMA
from make_schema import go_sources, package_name, read_definitions, short, structs

OUTPUT = SCHEMA.with_name("descriptions.json.gz")
ENUMERATION = re.compile(r"^// \+enum\n(?://[^\n]*\n)*type (\w+) string", re.MULTILINE)
CONSTANT = re.compile(r'^\s*\w+\s+(\w+)\s*=\s*"([^"]*)"', re.MULTILINE)
CONVERTED = re.compile(r'^\s*\w+\s*=\s*(\w+)\("([^"]*)"\)', re.MULTILINE)
METRICS: dict[str, list[Any]] = {
    "metrics.v1beta1.ContainerMetrics": ["What one container uses.", {"name": "The container's name.", "usage": "What it uses, by resource."}, {}],
    "metrics.v1beta1.NodeMetrics": ["What a node uses.", {
        "timestamp": "When it was measured: the end of the window.", "window": "The time over which CPU usage is the average.",
        "usage": "What the node uses, by resource."}, {}],
    "metrics.v1beta1.PodMetrics": ["What a Pod uses.", {
        "timestamp": "When it was measured: the end of the window.", "window": "The time over which CPU usage is the average.",
        "containers": "What each of its containers uses."}, {}],
}  # fmt: skip
"""The published schemas lack them; these words are our own."""


def enumerations(repos: list[Path]) -> dict[str, list[str]]:
    """`core.v1.PullPolicy` -> its values, sorted."""
    found: dict[str, list[str]] = {}
    for repo in repos:
        for path, text in go_sources(repo).items():
            values: dict[str, list[str]] = {}
            for name, value in CONSTANT.findall(text) + CONVERTED.findall(text):
                values.setdefault(name, []).append(value)
            for name in ENUMERATION.findall(text):
                found[f"{package_name(path)}.{name}"] = sorted(set(values.get(name, ())))
    return {name: values for name, values in found.items() if values}


def enumerated_fields(repos: list[Path], known: dict[str, list[str]]) -> dict[tuple[str, str], list[str]]:
    """(type, field) -> values."""
    found: dict[tuple[str, str], list[str]] = {}
    inlined: list[tuple[str, str]] = []
    for repo in repos:
        for path, text in go_sources(repo).items():
            package = package_name(path)
            for name, fields in structs(text):
                for field in fields:
                    own = field["type"].rpartition(".")
                    # The packages that API types are taken from by another name are core's.
                    target = f"{package if not own[0] else 'core.v1'}.{own[2]}"
                    if target in known and field["json"]:
                        found[f"{package}.{name}", field["json"]] = known[target]
                    elif field["inline"]:
                        inlined.append((f"{package}.{name}", f"{package}.{field['type']}"))
    for outer, inner in inlined:
        found |= {(outer, field): values for (name, field), values in found.items() if name == inner}
    return found


def make(schemas: Path, repos: list[Path], wanted: set[str]) -> dict[str, Any]:
    version, definitions = read_definitions(schemas)
    values = enumerated_fields(repos, enumerations(repos))
    types: dict[str, Any] = {}
    for full, schema in definitions.items():
        name = short(full)
        if name not in wanted:
            continue
        fields = {
            field: said for field, value in schema.get("properties", {}).items() if (said := value.get("description"))
        }
        types[name] = [
            schema.get("description", ""),
            fields,
            {field: values[name, field] for field in schema.get("properties", {}) if (name, field) in values},
        ]
    return {"version": version, "types": dict(sorted((types | METRICS).items()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--schemas", type=Path, required=True, help="folder that kubernetes-validate is installed in")
    parser.add_argument("--go", type=Path, action="append", required=True, help="clone of a repository with API types")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    table = json.loads(gzip.decompress(SCHEMA.read_bytes()))
    scalars = {"api.resource.Quantity", "util.intstr.IntOrString", "meta.v1.Time", "meta.v1.MicroTime"}
    made = make(options.schemas, options.go, set(table["types"]) | scalars)
    if made["version"] != table["version"]:
        parser.error(f"these are of Kubernetes {made['version']}, the table is of {table['version']}")
    packed = gzip.compress(json.dumps(made, separators=(",", ":")).encode(), 9, mtime=0)
    options.output.write_bytes(packed)
    silent = [f"{name}.{row[0]}" for name, each in table["types"].items() for row in each["f"]
              if row[0] not in made["types"].get(name, ["", {}])[1]]  # fmt: skip
    print(f"{len(made['types'])} types, {sum(len(each[2]) for each in made['types'].values())} fields with fixed values, "
          f"{len(silent)} fields without a description, {len(packed)} bytes")  # fmt: skip


if __name__ == "__main__":
    main()
