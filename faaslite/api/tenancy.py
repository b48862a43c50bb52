"""What teams share a cluster by, as documents: the platform's roles, and what a team's namespace begins with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.api import quantity
from core.api.kinds import (
    CLUSTER_ROLE,
    LIMIT_RANGE,
    NAMESPACE,
    NETWORK_POLICY,
    RESOURCE_QUOTA,
    ROLE_BINDING,
    SERVICE_ACCOUNT,
    Kind,
)
from core.api.meta import Document
from faaslite.api.names import ANNOTATION_CONCURRENCY, ANNOTATION_RPS, FUNCTION, GROUP

__all__ = [
    "BUILDER_ACCOUNT",
    "CI_ACCOUNT",
    "LAYERS",
    "LEVELS",
    "ROLES",
    "Bounds",
    "changed",
    "read_bounds",
    "role_binding",
    "roles",
    "team_documents",
]

BUILDER_ACCOUNT = "layer-builder"
"""Who build Pods act as."""
LAYERS = "layers"
"""The subresource of functions whose creation is all that they may."""
CI_ACCOUNT = "ci"
ROLES = ("developer", "viewer", "ci")
"""What `faas token create --role` knows; the ClusterRole of each is `faaslite-ROLE`."""
LEVELS = ("privileged", "baseline", "restricted")
"""Of Pod security (https://kubernetes.io/docs/concepts/security/pod-security-standards/)."""
_QUOTA = "team"
_POD_SECURITY = "pod-security.kubernetes.io"
_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Document:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _role(name: str, rules: list[Document], **labels: str) -> Document:
    return {
        "apiVersion": CLUSTER_ROLE.api_version,
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "faaslite", **labels}},
        "rules": rules,
    }


def roles() -> list[Document]:
    """The platform's ClusterRoles. Functions join Kubernetes' own `view` and `edit` too."""
    seen = [
        _rule(GROUP, ["functions"], _READ),
        _rule("", ["configmaps", "events", "limitranges", "pods", "pods/log", "resourcequotas", "services"], _READ),
        _rule("apps", ["replicasets"], _READ),
        _rule(_RBAC, ["roles", "rolebindings"], _READ),  # who may do what here, oneself among them
    ]
    deployed = [_rule(GROUP, ["functions"], _WRITE), _rule(GROUP, ["functions/invoke"], ["create", "get"])]
    secrets = _rule("", ["secrets", "configmaps"], [*_READ, *_WRITE])
    inside = _rule("", ["pods/attach", "pods/exec", "pods/portforward"], ["create", "get"])
    return [
        _role("faaslite-viewer", seen),
        _role("faaslite-ci", [*seen, *deployed]),
        _role("faaslite-builder", [_rule(GROUP, [f"functions/{LAYERS}"], ["create"])]),
        _role("faaslite-developer", [*seen, *deployed, secrets, inside]),
        _role("faaslite-aggregate-to-view", seen[:1], **{f"{_RBAC}/aggregate-to-view": "true"}),
        _role("faaslite-aggregate-to-edit", deployed, **{f"{_RBAC}/aggregate-to-edit": "true"}),
    ]


def role_binding(namespace: str, role: str, account: str) -> Document:
    """Gives a ServiceAccount of the namespace one of `ROLES` there."""
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": "RoleBinding",
        "metadata": {"name": f"faaslite-{account}", "namespace": namespace},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": f"faaslite-{role}"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a team may use together; "" is no bound. CPU and memory are what its Pods ask for (and for memory, what they may take at most).

    `rps` are the calls that it may be sent in a second, `concurrency` those that may be under way, over all its functions: the gateways'
    workers hold to these by the namespace's annotations. `pod_security` is one of `LEVELS`.
    """

    cpu: str = ""
    memory: str = ""
    pods: str = ""
    functions: str = ""
    rps: str = ""
    concurrency: str = ""
    pod_security: str = "baseline"

    def changed(self, **said: str | None) -> Bounds:
        """With what was said (None: nothing); `none` lifts a bound. ValueError, in one line, for what is no bound."""
        found = {}
        for name, value in said.items():
            if value is None:
                continue
            flag = f"--{name.replace('_', '-')}"
            if name == "pod_security":
                if value not in LEVELS:
                    raise ValueError(f"{flag} {value!r} is not a level of Pod security: there are {', '.join(LEVELS)}")
                found[name] = value
            else:
                found[name] = "" if value == "none" else _checked(flag, name, value)
        return replace(self, **found)

    def described(self) -> str:
        """`cpu 4, memory 8Gi`."""
        said = {name: value for name, value in asdict(self).items() if value and name != "pod_security"}
        return ", ".join(f"{name} {value}" for name, value in said.items())


def _checked(flag: str, name: str, value: str) -> str:
    if name in ("cpu", "memory"):
        try:
            amount = quantity.parse(value)
        except ValueError as error:
            raise ValueError(f"{flag} {value!r} is not a quantity: write it like 4, 500m or 8Gi, or none") from error
        if amount <= 0:
            raise ValueError(f"{flag} {value} must be more than nothing; none lifts the bound")
        return value
    if name == "rps":
        try:
            rate = float(value)
        except ValueError:
            rate = 0.0
        if not 0 < rate < 1e9:
            raise ValueError(f"{flag} {value!r} is not a number of calls a second above 0; none lifts the bound")
        return value
    least = 1 if name == "concurrency" else 0
    if not (value.isascii() and value.isdigit()) or int(value) < least:
        raise ValueError(f"{flag} {value!r} is not a whole number from {least} on; none lifts the bound")
    return str(int(value))


def read_bounds(namespace: Mapping[str, Any], quotas: Iterable[Mapping[str, Any]]) -> Bounds:
    """What holds for a namespace that is there already."""
    metadata = namespace.get("metadata") or {}
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    found = next((each for each in quotas if each["metadata"]["name"] == _QUOTA), None) or {}
    hard = {name: str(value) for name, value in ((found.get("spec") or {}).get("hard") or {}).items()}
    return Bounds(
        cpu=hard.get("requests.cpu", ""),
        memory=hard.get("requests.memory", ""),
        pods=hard.get("pods", ""),
        functions=hard.get(_FUNCTIONS, ""),
        rps=annotations.get(ANNOTATION_RPS, ""),
        concurrency=annotations.get(ANNOTATION_CONCURRENCY, ""),
        pod_security=labels.get(f"{_POD_SECURITY}/enforce") or "privileged",
    )


_FUNCTIONS = f"count/{FUNCTION.resource}"


def team_documents(
    name: str, bounds: Bounds, *, developers: Iterable[str] = (), viewers: Iterable[str] = ()
) -> list[tuple[Kind, Document]]:
    """A team's namespace in the order of creation. `developers` and `viewers` are groups of users.

    With a bound on CPU or memory come defaults for containers that say nothing, or every Pod of the team would be refused; the quota and the
    defaults are there without any bound too, empty, so that bounds can come later. The NetworkPolicy lets in the gateway and the team
    itself; it is stored until the network enforces policies.
    """
    item = {
        "type": "Container",
        "default": {"memory": "128Mi"},
        "defaultRequest": {"cpu": "50m", "memory": "128Mi"},
    }
    hard: dict[str, Any] = {
        "requests.cpu": bounds.cpu,
        "requests.memory": bounds.memory,
        "limits.memory": bounds.memory,
        "pods": bounds.pods,
        _FUNCTIONS: bounds.functions,
    }
    account: Document = {"metadata": {"name": CI_ACCOUNT, "namespace": name}}
    limits = [item] if bounds.cpu or bounds.memory else []
    return [
        (NAMESPACE, _namespace(name, bounds)),
        (NETWORK_POLICY, _network_policy(name)),
        (LIMIT_RANGE, {"metadata": {"name": _QUOTA, "namespace": name}, "spec": {"limits": limits}}),
        (RESOURCE_QUOTA, {
            "metadata": {"name": _QUOTA, "namespace": name},
            "spec": {"hard": {each: value for each, value in hard.items() if value}},
        }),
        (SERVICE_ACCOUNT, account),
        (ROLE_BINDING, role_binding(name, "ci", CI_ACCOUNT)),
        (ROLE_BINDING, _group_binding(name, "developer", developers)),
        (ROLE_BINDING, _group_binding(name, "viewer", viewers)),
    ]  # fmt: skip


def changed(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> Document | None:
    """The merge patch that brings a stored object to what `team_documents` says; None where nothing differs.

    Labels, annotations and subjects that somebody else added stay; annotations of ours that aren't wanted go.
    """
    patch: Document = {}
    had, asked = stored.get("metadata") or {}, wanted.get("metadata") or {}
    for part in ("labels", "annotations"):
        ours = dict.fromkeys((ANNOTATION_RPS, ANNOTATION_CONCURRENCY)) if part == "annotations" else {}
        goal = {**ours, **(asked.get(part) or {})}
        now = had.get(part) or {}
        differ = {name: value for name, value in goal.items() if now.get(name) != value}
        if differ:
            patch.setdefault("metadata", {})[part] = differ
    if "subjects" in wanted:
        missing = [each for each in wanted["subjects"] if each not in (stored.get("subjects") or ())]
        if missing:
            patch["subjects"] = [*(stored.get("subjects") or ()), *missing]
    if "limits" in (wanted.get("spec") or {}) and bool(wanted["spec"]["limits"]) != bool(stored["spec"].get("limits")):
        patch["spec"] = wanted["spec"]
    if "hard" in (wanted.get("spec") or {}):
        goal, now = wanted["spec"]["hard"], (stored.get("spec") or {}).get("hard") or {}
        bounds = ("requests.cpu", "requests.memory", "limits.memory", "pods", _FUNCTIONS)
        moved = {each: goal.get(each) for each in bounds if goal.get(each) != now.get(each)}
        if moved:
            patch["spec"] = {"hard": moved}
    return patch or None


def _namespace(name: str, bounds: Bounds) -> Document:
    """Pods that the stricter level would refuse are named in warnings and in the audit log, whatever is enforced."""
    levels = {f"{_POD_SECURITY}/enforce": bounds.pod_security}
    levels |= {f"{_POD_SECURITY}/{mode}": "restricted" for mode in ("warn", "audit")}
    limits = {ANNOTATION_RPS: bounds.rps, ANNOTATION_CONCURRENCY: bounds.concurrency}
    return {
        "metadata": {
            "name": name,
            "labels": {"app.kubernetes.io/managed-by": "faaslite", **levels},
            "annotations": {each: value for each, value in limits.items() if value},
        }
    }


def _group_binding(namespace: str, role: str, groups: Iterable[str]) -> Document:
    """For people whom an identity provider puts into groups; accounts with tokens have bindings of their own."""
    return {
        "apiVersion": ROLE_BINDING.api_version,
        "kind": ROLE_BINDING.kind,
        "metadata": {"name": f"team-{role}s", "namespace": namespace},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": f"faaslite-{role}"},
        "subjects": [{"apiGroup": _RBAC, "kind": "Group", "name": each} for each in groups],
    }


def _network_policy(namespace: str) -> Document:
    own: Document = {"podSelector": {}}
    system = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "faaslite-system"}}}
    return {
        "metadata": {"name": "team", "namespace": namespace},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [own, system]}]},
    }
