"""Names that several parts of the platform must spell the same: labels, annotations, environment, headers, paths."""

from __future__ import annotations

from core.api.kinds import Kind

__all__ = [
    "ANNOTATION_BUILD_ASKED", "ANNOTATION_CONCURRENCY", "ANNOTATION_RESOLVED", "ANNOTATION_REVISION_HASH", "ANNOTATION_RPS", "ANNOTATION_SCALE", "ANNOTATION_SECRET_VERSION", "ANNOTATION_WAS_READY", "ANNOTATION_WEIGHT",
    "BUILD_COMMAND", "BUILD_PATH", "CONTAINER_NAME", "FUNCTION", "GROUP", "HEADER_BUSY", "HEADER_CALL_ID", "HEADER_COLD_START", "HEADER_CRON", "HEADER_DEADLINE", "HEADER_REVISION", "LABEL_BUILD", "LABEL_BUILD_OF", "LABEL_FUNCTION", "LABEL_KEY", "LABEL_REVISION", "LABEL_VERSIONED", "LABEL_VERSION_OF", "LAYER_PATH", "LIVE_PATH", "MODULES_PATH", "NO_ROUTE_TAINT", "PACKAGE_DRIVER", "PACKAGE_PATH", "PORT", "PROCESS_TAINT",
    "READY_PATH", "SECRETS_PATH", "SYSTEM_NAMESPACE", "revision_name",
]  # fmt: skip

GROUP = "faaslite.dev"
FUNCTION = Kind(GROUP, "v1", "Function", "functions", True, ("fn",), ("status",), ("all", "faaslite"))
SYSTEM_NAMESPACE = "faaslite-system"

LABEL_FUNCTION = "faaslite.dev/function"
LABEL_REVISION = "faaslite.dev/revision"
LABEL_BUILD = "faaslite.dev/build"
"""On a build Pod: the key of the layer that it makes (`faaslite.api.layers`)."""
LABEL_BUILD_OF = "faaslite.dev/build-of"
"""On a build Pod: the function that it was made for first. Not `LABEL_FUNCTION`: it is no instance."""
LABEL_KEY = "faaslite.dev/key"
"""On a Secret (any value): the hash of a key that may call functions of its namespace, see `faas key create`."""
LABEL_VERSIONED = "faaslite.dev/versioned"
"""On a Secret that has versions (`faaslite.api.versions`)."""
LABEL_VERSION_OF = "faaslite.dev/version-of"
ANNOTATION_SECRET_VERSION = "faaslite.dev/secret-version"  # noqa: S105 - a name
"""On such a Secret: the number of its current version. As a label, on a version: which one it is."""
ANNOTATION_SCALE = "faaslite.dev/scale"
"""On a revision's ReplicaSet: the JSON of `faaslite.api.wire.ScalePolicy`, all that the autoscaler needs to know."""
ANNOTATION_RPS = "faaslite.dev/rps"
ANNOTATION_CONCURRENCY = "faaslite.dev/concurrency"
"""On a Namespace: calls a second, and calls under way, that the gateway lets through to all its functions together."""
ANNOTATION_WEIGHT = "faaslite.dev/weight"
"""On a Namespace: its weight among all where queued calls share the slots, 0.01 to 100; 1 where there is none."""
ANNOTATION_BUILD_ASKED = "faaslite.dev/build-asked"
"""On a Function, and on a build Pod that was made for it: any text. A build that failed is tried again when it changes."""
ANNOTATION_RESOLVED = "faaslite.dev/resolved"
"""On a Function: any text. When it changes, its requirements are resolved anew."""
ANNOTATION_REVISION_HASH = "faaslite.dev/template-hash"
ANNOTATION_WAS_READY = "faaslite.dev/was-ready"
"""On a revision's ReplicaSet: `true` once it was good enough to take the calls."""
PROCESS_TAINT = "faaslite.dev/process-runtime"
"""Taint (NoSchedule) of process nodes, tolerated by function Pods: only `faaslite/<runtime>` images run there."""
NO_ROUTE_TAINT = "faaslite.dev/no-route"
"""Taint (NoSchedule) of process nodes on another machine than the gateway's: their Pods have addresses of that machine alone."""

CONTAINER_NAME = "function"
PORT = 8012
"""Where instances listen. Not 8080: a program that has that port on every address is on many machines, and would leave Pods that
are processes none."""
READY_PATH = "/_/ready"
LIVE_PATH = "/_/live"
PACKAGE_DRIVER = "packages.faaslite.dev"
"""Inline CSI volumes with `volumeAttributes: {digest: "sha256:..."}`."""
PACKAGE_PATH = "/var/faaslite/package"
LAYER_PATH = "/var/faaslite/layer"
MODULES_PATH = "/var/faaslite/node_modules"
"""The layer of node functions: where their modules are looked for, from the package's folder upwards."""
SECRETS_PATH = "/var/run/secrets/faaslite"
BUILD_COMMAND = "faaslite-build"
"""The command of runtime images that installs dependencies: see `runtime-images/PROTOCOL.md`."""
BUILD_PATH = "/var/faaslite/build"
"""Where a build Pod works."""

HEADER_CALL_ID = "X-Call-Id"
HEADER_DEADLINE = "X-Faaslite-Deadline"
"""Seconds since the epoch with millisecond decimals: `1732390000.250`."""
HEADER_BUSY = "X-Faaslite-Busy"
"""On a 503 of a shim: the instance is at its concurrency limit, the body was not read, go elsewhere."""
HEADER_CRON = "X-Faaslite-Cron"
HEADER_REVISION = "X-Faaslite-Revision"
"""On a request: the revision that is to answer it, instead of what the traffic says."""
HEADER_COLD_START = "X-Faaslite-Cold-Start"
"""On a gateway's reply: milliseconds that the call waited for an instance; absent where it didn't wait."""


def revision_name(function: str, number: int) -> str:
    """`hello-00003`: the name of a revision and of its ReplicaSet."""
    return f"{function}-{number:05d}"
