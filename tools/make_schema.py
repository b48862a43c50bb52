"""Make `core/apiserver/data/schema.json.gz`, the table of the built-in types of the Kubernetes API.

    pip install --no-deps --target DIR kubernetes-validate
    python tools/make_schema.py --schemas DIR --go API_REPO --go APIMACHINERY_REPO --go APIEXTENSIONS_REPO

`--go` names work trees or bare clones of kubernetes/api, kubernetes/apimachinery and kubernetes/apiextensions-apiserver.
The table holds names and numbers only: fields, their JSON shapes, merge keys, list keys, and the protobuf field numbers with
the inlined structs. `core/apiserver/schema.py` says its form. Problems (fields without a number) are printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import subprocess
from pathlib import Path
from typing import Any

OUTPUT = Path(__file__).resolve().parent.parent / "core/apiserver/data/schema.json.gz"

PACKAGES = {
    "io.k8s.api.": "",
    "io.k8s.apimachinery.pkg.apis.": "",
    "io.k8s.apimachinery.pkg.": "",
    "io.k8s.apiextensions-apiserver.pkg.apis.": "",
    "io.k8s.kube-aggregator.pkg.apis.": "",
}
KEPT = {
    "admissionregistration.v1", "apiextensions.v1", "apiregistration.v1", "apps.v1", "authentication.v1", "authorization.v1",
    "autoscaling.v1", "autoscaling.v2", "batch.v1", "certificates.v1", "coordination.v1", "core.v1", "discovery.v1", "events.v1",
    "flowcontrol.v1", "meta.v1", "networking.v1", "node.v1", "policy.v1", "rbac.v1", "resource.v1", "scheduling.v1", "storage.v1",
}  # fmt: skip

SPECIAL = {
    "api.resource.Quantity": "q",
    "util.intstr.IntOrString": "x",
    "meta.v1.Time": "t",
    "meta.v1.MicroTime": "T",
    "meta.v1.FieldsV1": "*",
    "meta.v1.Patch": "*",
    "runtime.RawExtension": "*",
    "apiextensions.v1.JSON": "*",
    "apiextensions.v1.JSONSchemaPropsOrArray": "A",
    "apiextensions.v1.JSONSchemaPropsOrBool": "B",
    "apiextensions.v1.JSONSchemaPropsOrStringArray": "S",
}
SCALARS = {
    ("string", ""): "s", ("string", "byte"): "y", ("string", "date-time"): "t", ("integer", "int32"): "i",
    ("integer", "int64"): "l", ("integer", ""): "l", ("number", "double"): "n", ("number", ""): "n", ("boolean", ""): "b",
}  # fmt: skip

METRICS: dict[str, Any] = {
    "metrics.v1beta1.ContainerMetrics": {"f": [["name", "s", 1, "kr"], ["usage", "{q", 2, "kr"]]},
    "metrics.v1beta1.NodeMetrics": {
        "g": ["metrics.k8s.io", "v1beta1", "NodeMetrics"],
        "f": [["apiVersion", "s"], ["kind", "s"], ["metadata", "@meta.v1.ObjectMeta", 1],
              ["timestamp", "t", 2, "kr"], ["window", "s", 3, "kr"], ["usage", "{q", 4, "kr"]],
    },
    "metrics.v1beta1.PodMetrics": {
        "g": ["metrics.k8s.io", "v1beta1", "PodMetrics"],
        "f": [["apiVersion", "s"], ["kind", "s"], ["metadata", "@meta.v1.ObjectMeta", 1],
              ["timestamp", "t", 2, "kr"], ["window", "s", 3, "kr"],
              ["containers", "[@metrics.v1beta1.ContainerMetrics", 4, "kr"]],
    },
}  # fmt: skip
"""Kinds of the metrics API, which the published schemas lack."""

AGGREGATOR: dict[str, dict[str, tuple[int, str]]] = {
    "APIService": {"metadata": (1, "k"), "spec": (2, "k"), "status": (3, "k")},
    "APIServiceCondition": {
        "type": (1, "kr"), "status": (2, "kr"), "lastTransitionTime": (3, ""), "reason": (4, ""), "message": (5, ""),
    },
    "APIServiceList": {"metadata": (1, ""), "items": (2, "kr")},
    "APIServiceSpec": {
        "service": (1, "p"), "group": (2, ""), "version": (3, ""), "insecureSkipTLSVerify": (4, ""), "caBundle": (5, ""),
        "groupPriorityMinimum": (7, "kr"), "versionPriority": (8, "kr"),
    },
    "APIServiceStatus": {"conditions": (1, "")},
    "ServiceReference": {"namespace": (1, ""), "name": (2, ""), "port": (3, "p")},
}  # fmt: skip
"""Field numbers and flags of the package apiregistration.v1 (kubernetes/kube-aggregator), which is in none of the repositories."""


def number_aggregator(types: dict[str, Any]) -> None:
    for name, fields in AGGREGATOR.items():
        for row in types[f"apiregistration.v1.{name}"]["f"]:
            if row[0] in fields:
                row[2:4] = fields[row[0]]


def short(name: str) -> str:
    """`core.v1.Pod` for `io.k8s.api.core.v1.Pod`."""
    for prefix, new in PACKAGES.items():
        if name.startswith(prefix):
            return new + name.removeprefix(prefix)
    return name


# JSON schemas


def shape(schema: dict[str, Any]) -> str:
    """The JSON shape of a value, in the notation of the table."""
    if "$ref" in schema:
        name = short(schema["$ref"].rpartition("/")[2])
        return SPECIAL.get(name) or f"@{name}"
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next(each for each in kind if each != "null")
    if kind == "array":
        return "[" + shape(schema["items"])
    if kind == "object":
        more = schema.get("additionalProperties")
        return "{" + shape(more) if isinstance(more, dict) else "*"
    return SCALARS[str(kind), schema.get("format", "")]


def read_definitions(folder: Path) -> tuple[str, dict[str, Any]]:
    """The newest version that the package has, and its definitions."""

    def version(path: Path) -> tuple[int, ...]:
        return tuple(int(part) for part in re.findall(r"\d+", path.parent.name))

    newest = max(folder.glob("**/v*-local/_definitions.json"), key=version)
    return ".".join(map(str, version(newest)[:2])), json.loads(newest.read_text())["$defs"]


# Go types


FIELD = re.compile(r"^\s*(?:(?P<name>\w+)\s+)?(?P<type>[\[\]*\w.]+)\s+`(?P<tags>[^`]*)`")
TAG = re.compile(r'(\w+):"([^"]*)"')


def go_sources(repo: Path) -> dict[str, str]:
    """Path -> text of every Go file that declares API types."""
    if (repo / "HEAD").exists():

        def git(*words: str) -> str:
            return subprocess.run(["git", "-C", str(repo), *words], check=True, capture_output=True, text=True).stdout

        paths = [path for path in git("ls-tree", "-r", "--name-only", "HEAD").splitlines() if wanted(path)]
        return {path: git("show", f"HEAD:{path}") for path in paths}
    return {str(path.relative_to(repo)): path.read_text() for path in repo.rglob("*.go") if wanted(str(path))}


def wanted(path: str) -> bool:
    return bool(re.search(r"/v\d\w*/types\w*\.go$", path)) and not path.endswith("_test.go")


def package_name(path: str) -> str:
    return ".".join(path.split("/")[-3:-1])


def read_go(repos: list[Path]) -> dict[str, list[dict[str, Any]]]:
    """`core.v1.Pod` -> its fields: {json, number, type, pointer, keep, inline}."""
    found: dict[str, list[dict[str, Any]]] = {}
    for repo in repos:
        for path, text in go_sources(repo).items():
            for name, fields in structs(text):
                found[f"{package_name(path)}.{name}"] = fields
    return found


def structs(text: str) -> list[tuple[str, list[dict[str, Any]]]]:
    found: list[tuple[str, list[dict[str, Any]]]] = []
    open_fields: list[dict[str, Any]] | None = None
    for line in text.splitlines():
        started = re.match(r"type (\w+) struct \{", line)
        if started:
            open_fields = []
            found.append((started[1], open_fields))
        elif line.startswith("}"):
            open_fields = None
        elif open_fields is not None and (matched := FIELD.match(line.split("//")[0] if "`" not in line else line)):
            tags = dict(TAG.findall(matched["tags"]))
            proto = tags.get("protobuf", "")
            number = next((int(part) for part in proto.split(",") if part.isdigit()), 0)
            name, _, options = tags.get("json", "").partition(",")
            if name == "-" or ("json" not in tags):
                continue
            open_fields.append({
                "json": name,
                "number": number,
                "type": matched["type"].lstrip("*[]"),
                "pointer": matched["type"].startswith("*"),
                "keep": "omitempty" not in options,
                "inline": not name,
            })  # fmt: skip
    return found


# The table


def make_type(
    name: str, schema: dict[str, Any], go: dict[str, list[dict[str, Any]]], problems: list[str]
) -> dict[str, Any]:
    known = {each["json"]: each for each in go.get(name, ()) if each["json"]}
    required = set(schema.get("required", ()))
    inlined: list[list[Any]] = []
    at_home: set[str] = set(known)
    for each in go.get(name, ()):
        if each["inline"] and each["number"]:
            package = name.rpartition(".")[0] if "." not in each["type"] else "meta.v1"
            target = f"{package}.{each['type'].rpartition('.')[2]}"
            inlined.append([each["number"], target])
            for field in flat(target, go):
                at_home.add(field["json"])
                known.setdefault(field["json"], {**field, "number": 0})
    fields = []
    for field, value in schema.get("properties", {}).items():
        info = known.get(field, {"number": 0, "pointer": False, "keep": False})
        if name in go and field not in ("apiVersion", "kind") and field not in at_home:
            problems.append(f"{name}.{field} is in no Go struct")
        flags = "".join(
            letter
            for letter, on in (
                ("a", value.get("x-kubernetes-map-type") == "atomic"),
                ("k", info["keep"]),
                ("p", info["pointer"]),
                ("r", field in required),
            )
            if on
        )
        row = [
            field,
            shape(value),
            info["number"],
            flags,
            value.get("x-kubernetes-patch-merge-key", ""),
            value.get("x-kubernetes-patch-strategy", ""),
            value.get("x-kubernetes-list-type", ""),
            value.get("x-kubernetes-list-map-keys", ""),
        ]
        while not row[-1]:
            row.pop()
        fields.append(row)
    found: dict[str, Any] = {"f": fields}
    if inlined:
        found["i"] = inlined
    if schema.get("x-kubernetes-map-type") == "atomic":
        found["a"] = 1
    kinds = schema.get("x-kubernetes-group-version-kind", ())
    if len(kinds) == 1:
        found["g"] = [kinds[0]["group"], kinds[0]["version"], kinds[0]["kind"]]
    return found


def flat(name: str, go: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The fields of a struct as JSON has them: those of the structs that it inlines among its own."""
    found = []
    for each in go[name]:
        if each["json"]:
            found.append(each)
        elif each["number"]:
            found += flat(f"{name.rpartition('.')[0]}.{each['type']}", go)
    return found


def inlined_types(types: dict[str, Any], go: dict[str, list[dict[str, Any]]]) -> None:
    """Add the structs that only occur inlined: their fields are in the outer type's schema, their numbers only in Go."""
    for outer in list(types.values()):
        for _, target in outer.get("i", ()):
            if target in types:
                continue
            rows = {row[0]: row for row in outer["f"]}
            types[target] = {
                "f": [
                    [field["json"], rows[field["json"]][1], field["number"], *rows[field["json"]][3:]]
                    for field in go[target]
                    if field["json"] in rows
                ]
            }
            deeper = [
                [field["number"], f"{target.rpartition('.')[0]}.{field['type']}"]
                for field in go[target]
                if field["inline"] and field["number"]
            ]
            if deeper:
                types[target]["i"] = deeper


def make(schemas: Path, repos: list[Path]) -> tuple[dict[str, Any], list[str]]:
    version, definitions = read_definitions(schemas)
    go = read_go(repos)
    problems: list[str] = []
    types: dict[str, Any] = {}
    by_name = {short(full): schema for full, schema in definitions.items()}
    wanted_names = [name for name in by_name if name.rpartition(".")[0] in KEPT]
    while wanted_names:
        name = wanted_names.pop()
        if name in SPECIAL or name in types:
            continue
        types[name] = make_type(name, by_name[name], go, problems)
        wanted_names += [row[1].rpartition("@")[2] for row in types[name]["f"] if "@" in row[1]]
    inlined_types(types, go)
    types.update(METRICS)
    number_aggregator(types)
    for name, each in types.items():
        for row in each["f"]:
            target = row[1].lstrip("[{")
            if target.startswith("@") and target[1:] not in types:
                problems.append(f"{name}.{row[0]} refers to {target[1:]}, which is not in the table")
            if (len(row) < 3 or not row[2]) and row[0] not in ("apiVersion", "kind") and not each.get("i"):
                problems.append(f"{name}.{row[0]} has no field number")
    return {"version": version, "types": dict(sorted(types.items()))}, problems


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--schemas", type=Path, required=True, help="folder that kubernetes-validate is installed in")
    parser.add_argument("--go", type=Path, action="append", required=True, help="clone of a repository with API types")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    table, problems = make(options.schemas, options.go)
    packed = gzip.compress(json.dumps(table, separators=(",", ":")).encode(), 9, mtime=0)
    options.output.write_bytes(packed)
    for each in problems:
        print(each)
    print(f"{len(table['types'])} types of Kubernetes {table['version']}, {len(packed)} bytes")


if __name__ == "__main__":
    main()
