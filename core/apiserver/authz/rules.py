"""The fixed policy, as data: who may do what. The table of `docs/interfaces.md`, a row per permission; nodes have
theirs in `node.py`.

"*" stands for everything, also in `resources` (subresources included); a resource is `pods` or `pods/status`.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.apiserver.authn import AUTHENTICATED, MASTERS

__all__ = ["RULES", "Rule"]

GATEWAY = "system:serviceaccount:faaslite-system:gateway"
JOBS = "system:serviceaccount:faaslite-system:jobs"
NODES = "system:nodes"

_READ = ("get", "list", "watch")
_WRITE = ("create", "update", "patch", "delete")
_CREATE = ("create",)


@dataclass(frozen=True, slots=True)
class Rule:
    """`subjects` are names of users or groups. Resource rules have `resources`, the others `paths`; a path may end with `*`."""

    subjects: tuple[str, ...]
    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def covers_resource(self, verb: str, group: str, resource: str) -> bool:
        return (
            (verb in self.verbs or "*" in self.verbs)
            and (group in self.groups or "*" in self.groups)
            and (resource in self.resources or "*" in self.resources)
        )

    def covers_path(self, verb: str, path: str) -> bool:
        return (verb in self.verbs or "*" in self.verbs) and any(
            path == each or (each.endswith("*") and path.startswith(each[:-1])) for each in self.paths
        )


_EVERYONE = ("system:authenticated", "system:unauthenticated")
_REVIEW_GROUPS = ("authentication.k8s.io", "authorization.k8s.io")

RULES: tuple[Rule, ...] = (
    Rule((MASTERS,), ("*",), ("*",), ("*",), ("*",)),
    Rule(_EVERYONE, ("get", "head"), paths=("/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*", "/version", "/version/")),
    Rule((AUTHENTICATED,), ("get", "head"), paths=("/", "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*")),
    Rule((AUTHENTICATED,), _CREATE, _REVIEW_GROUPS, ("selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews")),
    Rule((NODES,), ("get", "head"), paths=("/packages.faaslite.dev/*",)),
    Rule((GATEWAY, JOBS), _CREATE, _REVIEW_GROUPS, ("tokenreviews", "subjectaccessreviews")),
    Rule((GATEWAY, JOBS), _READ, ("faaslite.dev",), ("functions",)),
    Rule((GATEWAY, JOBS), _READ, ("",), ("pods", "serviceaccounts", "services")),
    Rule((GATEWAY,), _READ, ("",), ("namespaces",)),
    Rule((GATEWAY, JOBS), _READ, ("rbac.authorization.k8s.io",), ("rolebindings",)),
    Rule((GATEWAY, JOBS), _READ, ("discovery.k8s.io",), ("endpointslices",)),
    Rule((GATEWAY, JOBS), _READ, ("apps",), ("replicasets",)),
    Rule((JOBS,), _READ + _WRITE, ("coordination.k8s.io",), ("leases",)),
    Rule((JOBS,), _READ, ("",), ("namespaces",)),
    Rule((JOBS,), _READ + _WRITE, ("",), ("events",)),
    Rule((JOBS,), ("get", "update", "patch"), ("faaslite.dev",), ("functions/status",)),
)  # fmt: skip
