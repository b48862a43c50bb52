"""What a hostile team tries with its tokens: requests to the API, to `/system/` and to the gateway.

An attack returns what it got where it got through; where every way was barred it returns "". `Tokens` are the developer's, that of an editor (a
ServiceAccount with Kubernetes' own `edit` role in the attackers' namespace, who may make Pods) and that of an owner (`admin` there).
"""

from __future__ import annotations

import base64
import io
import json
import tarfile
import time
from collections.abc import Callable, Iterable
from typing import Any

import jwt

ATTACKERS, VICTIMS = "red", "blue"
HOST = "blue.example"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
FUNCTIONS = "/apis/faaslite.dev/v1"
ATTACKS: dict[str, Callable[[Requests], str]] = {}


def attack(function: Callable[[Requests], str]) -> Callable[[Requests], str]:
    ATTACKS[function.__name__.replace("_", "-")] = function
    return function


class Requests:
    """Who asks, and what was refused and how, for the table."""

    def __init__(self, campaign: Any) -> None:
        self.platform, self.until = campaign.platform, campaign.until
        self.token: str = campaign.token
        self.refusals: dict[int, str] = {}
        self.editor = self._account("editor", "edit")
        self.owner = self._account("owner", "admin")

    def _account(self, name: str, role: str) -> str:
        place = f"/api/v1/namespaces/{ATTACKERS}/serviceaccounts"
        self.admin("POST", place, {"metadata": {"name": name}}, ok=(201, 409))
        subject = {"kind": "ServiceAccount", "name": name, "namespace": ATTACKERS}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        self.admin("POST", f"{RBAC}/namespaces/{ATTACKERS}/rolebindings", binding, ok=(201, 409))
        made = self.admin("POST", f"{place}/{name}/token", {"spec": {"expirationSeconds": 3600}})
        return str(made["status"]["token"])

    def admin(self, method: str, path: str, document: Any = None, ok: Iterable[int] = (200, 201), **more: Any) -> Any:
        reply = self.platform.kube(method, path, document, **more)
        assert reply.status in ok, (method, path, reply.status, reply.body)
        return reply.json

    def ask(
        self, method: str, where: str, document: Any = None, *, token: str | None = None, kind: str = "application/json",
        raw: bytes | None = None, **headers: str,
    ) -> Any:  # fmt: skip
        """One request, to the API where `where` begins with `/api`, else to the gateway."""
        base = self.platform.api if where.startswith("/api") else self.platform.url
        body = raw if raw is not None else None if document is None else json.dumps(document).encode()
        sent = {"Content-Type": kind, **headers}
        if token != "":
            sent["Authorization"] = f"Bearer {token or self.token}"
        return self.platform.http(base + where, body, method=method, timeout=20, **sent)

    def barred(self, replies: Iterable[Any]) -> str:
        """ "" where all were refused, else what the first one that wasn't says."""
        for each in replies:
            if each.status < 400:
                return f"{each.status} {each.body[:80]!r}"
            assert each.status < 500, (each.status, each.body)
            try:
                said = each.json
                reason = said.get("reason") or said.get("error") or ""
            except ValueError:
                reason = ""
            self.refusals[each.status] = f"{each.status} {reason}".strip()
        return ""

    def run(self) -> dict[str, tuple[str, str]]:
        found = {}
        for name, attempt in ATTACKS.items():
            self.refusals.clear()
            got = attempt(self)
            found[name] = ("open", got) if got else ("refused", "; ".join(self.refusals.values()))
        return found


@attack
def objects_of_others(r: Requests) -> str:
    core = ("pods", "services", "configmaps", "secrets", "events", "serviceaccounts", "resourcequotas", "endpoints")
    places = [f"/api/v1/namespaces/{VICTIMS}/{each}" for each in core] + [f"/api/v1/{each}" for each in core]
    groups = {
        "apps/v1": "replicasets",
        "faaslite.dev/v1": "functions",
        "discovery.k8s.io/v1": "endpointslices",
        "coordination.k8s.io/v1": "leases",
    }
    for group, kind in groups.items():
        places += [f"/apis/{group}/namespaces/{VICTIMS}/{kind}", f"/apis/{group}/{kind}"]
    places += ["/api/v1/nodes", "/api/v1/namespaces", "/api/v1/persistentvolumes", f"{RBAC}/clusterroles"]
    tricks = [
        "?watch=1&timeoutSeconds=1",
        f"?fieldSelector=metadata.namespace%3D{ATTACKERS}",
        "?resourceVersion=0",
        "?limit=1",
    ]
    victim = f"{FUNCTIONS}/namespaces/{VICTIMS}/functions/victim"
    merge = "application/merge-patch+json"
    return r.barred([
        *(r.ask("GET", each) for each in places),
        *(r.ask("GET", f"/api/v1/{kind}{trick}") for kind in ("pods", "secrets") for trick in tricks),
        r.ask("GET", victim), r.ask("DELETE", victim), r.ask("PATCH", victim, {"spec": {"timeout": "1s"}}, kind=merge),
        r.ask("POST", f"/api/v1/namespaces/{VICTIMS}/configmaps", {"metadata": {"name": "x"}}),
        # The namespace of the path is what counts, not that of the body.
        r.ask("POST", f"/api/v1/namespaces/{ATTACKERS}/configmaps", {"metadata": {"name": "x", "namespace": VICTIMS}}),
        r.ask("POST", f"/api/v1/namespaces/{VICTIMS}/events", {"metadata": {"name": "x"}, "involvedObject": {}, "reason": "x"}),
        r.ask("DELETE", f"/api/v1/namespaces/{VICTIMS}"), r.ask("DELETE", f"{FUNCTIONS}/namespaces/{VICTIMS}/functions"),
    ])  # fmt: skip


@attack
def secrets_of_others(r: Requests) -> str:
    place = f"/api/v1/namespaces/{VICTIMS}/secrets"
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    mine = {
        "metadata": {"name": "borrowed"},
        "spec": {"runtime": "python", "package": {"digest": "sha256:" + "0" * 64}},
    }
    for reference in (f"../{VICTIMS}/theirs", f"{VICTIMS}/theirs", f"{VICTIMS}:theirs"):
        # A Function that names one: it isn't taken, or it finds nothing.
        reply = r.ask(
            "POST",
            f"{FUNCTIONS}/namespaces/{ATTACKERS}/functions",
            {**mine, "spec": {**mine["spec"], "secrets": [reference]}},
        )
        if reply.status < 400:
            ready = _condition(r, "borrowed")
            r.ask("DELETE", f"{FUNCTIONS}/namespaces/{ATTACKERS}/functions/borrowed")
            if ready != ("False", "InvalidSpec"):
                return f"a Function with the secret {reference} is {ready}"
    return r.barred([
        r.ask("GET", f"{place}/theirs"), r.ask("GET", place, **table), r.ask("GET", f"{place}?watch=1&timeoutSeconds=1"),
        r.ask("GET", f"{place}/theirs", token=r.editor), r.ask("GET", f"{place}/theirs", token=r.owner), r.ask("DELETE", f"{place}/theirs"),
    ])  # fmt: skip


def _condition(r: Requests, name: str, type_: str = "Ready") -> tuple[str, str]:
    """(status, reason) of a condition of a Function of the attackers', once there is one."""

    def look() -> Any:
        found = r.ask("GET", f"{FUNCTIONS}/namespaces/{ATTACKERS}/functions/{name}").json.get("status") or {}
        return next(
            (
                (each["status"], each["reason"])
                for each in found.get("conditions") or ()
                if each["type"] == type_ and each["status"] != "Unknown"
            ),
            None,
        )

    found: tuple[str, str] = r.until(f"the condition of {name}", look, 30)
    return found


@attack
def logs_of_others(r: Requests) -> str:
    (pod, *_) = (each["metadata"]["name"] for each in r.platform.pods("victim", VICTIMS))
    place = f"/api/v1/namespaces/{VICTIMS}/pods/{pod}"
    own = r.platform.pods("breach", ATTACKERS)[0]["metadata"]["name"]
    mine = f"/api/v1/namespaces/{ATTACKERS}/pods"
    return r.barred([
        r.ask("GET", f"{place}/log"), r.ask("GET", f"{place}/log?follow=true"), r.ask("GET", f"{place}/exec?command=id"),
        r.ask("GET", f"{mine}/{pod}/log"), r.ask("GET", f"{mine}/{own}/log?container=..%2F..%2F..%2Fcore"),
        r.ask("GET", f"{mine}/..%2F..%2F{VICTIMS}%2Fpods%2F{pod}/log"),
    ])  # fmt: skip


@attack
def packages_of_others(r: Requests) -> str:
    """By their digest, at the store and in a Function of one's own."""
    document = r.admin("GET", f"{FUNCTIONS}/namespaces/{VICTIMS}/functions/victim")
    digest = document["spec"]["package"]["digest"]
    place = f"/system/packages/{digest}"
    got = r.barred([
        r.ask("GET", place), r.ask("GET", f"{place}?namespace={ATTACKERS}"), r.ask("HEAD", f"{place}?namespace={ATTACKERS}"),
        r.ask("GET", f"{place}?namespace={VICTIMS}"), r.ask("PUT", f"{place}?namespace={ATTACKERS}", raw=b"the digest is all I have"),
        r.ask("GET", f"{place}?namespace={ATTACKERS}&namespace={VICTIMS}"), r.ask("GET", f"{place}?namespace=..%2F{VICTIMS}"),
    ])  # fmt: skip
    spec = {"runtime": "python", "handler": document["spec"].get("handler", ""), "package": {"digest": digest}}
    r.ask("POST", f"{FUNCTIONS}/namespaces/{ATTACKERS}/functions", {"metadata": {"name": "stolen"}, "spec": spec})
    ready = _condition(r, "stolen", "Packaged") if not got else ("", "")
    # Until a Pod was tried it is Packaged: True (it names a digest); then the node says that there is none.
    if not got:
        ready = r.until(
            "the node's answer",
            lambda: (found := _condition(r, "stolen", "Packaged")) != ("True", "PackageSet") and found,
            30,
        )
    called = r.ask("GET", f"/function/stolen.{ATTACKERS}", token="", X_Faaslite_Deadline=f"{time.time() + 2:.3f}")
    r.ask("DELETE", f"{FUNCTIONS}/namespaces/{ATTACKERS}/functions/stolen")
    if called.status == 200 or ready != ("False", "PackageNotFound"):
        return got or f"{ready} {called.status} {called.body[:80]!r}"
    return got


@attack
def calls_of_others(r: Requests) -> str:
    """Records, results and payloads of asynchronous calls and of cron."""
    accepted = r.platform.call(f"/async-function/victim.{VICTIMS}", b"a secret payload", method="POST")
    call = accepted.json["callId"]
    place = f"/system/calls/{call}"
    return r.barred([
        r.ask("GET", place), r.ask("GET", f"{place}/wait?timeout=1"), r.ask("POST", f"{place}/cancel", {}), r.ask("POST", f"{place}/replay", {}),
        r.ask("GET", f"/system/calls?namespace={VICTIMS}"), r.ask("GET", "/system/calls"), r.ask("GET", "/system/calls?namespace="),
        r.ask("POST", "/system/calls/redrive", {"calls": [call]}), r.ask("POST", "/system/calls/redrive", {"namespace": VICTIMS, "function": "victim"}),
        r.ask("GET", f"/system/cron?namespace={VICTIMS}"), r.ask("POST", f"/system/cron/{VICTIMS}/victim/x/run", {}),
        r.ask("GET", f"{place}?namespace={ATTACKERS}"), r.ask("GET", "/system/metrics/jobs"), r.ask("GET", "/system/metrics/autoscaler"),
    ])  # fmt: skip


@attack
def functions_and_keys_of_others(r: Requests) -> str:
    """Calls of private functions and of those that want a key, with what one has oneself."""
    key = r.platform.faas("key", "create", "own", "-n", ATTACKERS).out.strip()
    keys = f"/api/v1/namespaces/{VICTIMS}/secrets?labelSelector=faaslite.dev%2Fkey"
    forged = {"metadata": {"name": "fk", "labels": {"faaslite.dev/key": "true"}}, "data": {}}
    ways = []
    for name in ("vault", "locked"):
        for where in (
            f"/function/{name}.{VICTIMS}",
            f"/async-function/{name}.{VICTIMS}",
            f"/function/{name}.{VICTIMS}/..%2f..%2fvictim.{VICTIMS}",
        ):
            ways += [r.ask("POST", where), r.ask("POST", where, token=""), r.ask("POST", where, token="", X_Faaslite_Key=key), r.ask("POST", where, token=key),
                     r.ask("POST", where, token="", X_Faaslite_Cron="nightly"), r.ask("POST", where, token="", X_Call_Id="x", X_Forwarded_For="127.0.0.1")]  # fmt: skip
    return r.barred([*ways, r.ask("GET", keys), r.ask("POST", f"/api/v1/namespaces/{VICTIMS}/secrets", forged)])


@attack
def routes_of_others(r: Requests) -> str:
    """A longer path on another team's host; its name as a path."""
    place = f"{FUNCTIONS}/namespaces/{ATTACKERS}/functions"
    spec = r.ask("GET", f"{place}/breach").json["spec"]
    routes = [
        {"host": HOST, "path": "/pay"},
        {"host": HOST.upper(), "path": "/"},
        {"path": f"/function/victim.{VICTIMS}"},
        {"path": "/system/calls"},
        {"path": "/healthz"},
    ]
    r.ask("POST", place, {"metadata": {"name": "thief"}, "spec": {**spec, "http": {"routes": routes}}})
    _condition(r, "thief", "RoutesReady")
    got = ""
    for path, host, expected in (
        ("/pay", HOST, b"hush"),
        ("/", HOST, b"hush"),
        (f"/function/victim.{VICTIMS}", "", b"secret"),
        ("/healthz", "", b""),
    ):
        reply = r.ask("GET", path, token="", **({"Host": host} if host else {}))
        if b"attack" in reply.body or expected not in reply.body or b"breach" in reply.body:
            got = f"{host}{path}: {reply.status} {reply.body[:60]!r}"
            break
    r.ask("DELETE", f"{place}/thief")
    r.refusals[0] = "the other team's function answers"
    return got


@attack
def acting_as_somebody_else(r: Requests) -> str:
    pods = f"/api/v1/namespaces/{VICTIMS}/pods"
    people = [{"Impersonate_User": "admin"}, {"Impersonate_User": "admin", "Impersonate_Group": "system:masters"}, {"Impersonate_Group": "system:masters"},
              {"Impersonate_User": f"system:serviceaccount:{VICTIMS}:ci"}, {"Impersonate_User": "system:node:node-1", "Impersonate_Group": "system:nodes"},
              {"Impersonate_Uid": "1"}, {"X_Remote_User": "admin", "X_Remote_Group": "system:masters"}, {"X_Forwarded_User": "admin"}]  # fmt: skip
    return r.barred(
        [r.ask("GET", pods, token=token, **each) for each in people for token in (r.token, r.editor, r.owner)]
    )


@attack
def rights_given_to_oneself(r: Requests) -> str:
    subject = [{"kind": "ServiceAccount", "name": "mallory", "namespace": ATTACKERS}]

    def to(kind: str, name: str) -> dict[str, Any]:
        return {
            "metadata": {"name": "up"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name},
            "subjects": subject,
        }

    everything = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
    here, there = (f"{RBAC}/namespaces/{each}" for each in (ATTACKERS, VICTIMS))
    patch = {"rules": everything}
    return r.barred([
        *(r.ask("POST", f"{here}/rolebindings", to("ClusterRole", "cluster-admin"), token=each) for each in (r.token, r.editor, r.owner)),
        *(r.ask("POST", f"{there}/rolebindings", to("ClusterRole", "view"), token=each) for each in (r.token, r.owner)),
        *(r.ask("POST", f"{RBAC}/clusterrolebindings", to("ClusterRole", "cluster-admin"), token=each) for each in (r.token, r.owner)),
        r.ask("POST", f"{here}/roles", {"metadata": {"name": "all"}, "rules": everything}, token=r.owner),
        r.ask("PATCH", f"{RBAC}/clusterroles/faaslite-developer", patch, kind="application/merge-patch+json"),
        r.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", {"metadata": {"name": "x.y"}}),
        r.ask("POST", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", {"metadata": {"name": "x"}}),
        r.ask("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", {"metadata": {"name": "x"}, "spec": {"signerName": "kubernetes.io/kube-apiserver-client", "request": ""}}),
        r.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": "x"}}),
        r.ask("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": {"user": "admin"}}),
    ])  # fmt: skip


@attack
def tokens_of_accounts(r: Requests) -> str:
    own = {
        "metadata": {"name": "t", "annotations": {"kubernetes.io/service-account.name": "owner"}},
        "type": "kubernetes.io/service-account-token",
    }
    asked = {"spec": {"expirationSeconds": 3600}}
    got = r.barred([
        r.ask("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", asked)
        for namespace, account in ((ATTACKERS, "ci"), (ATTACKERS, "owner"), (VICTIMS, "ci"), ("faaslite-system", "gateway"), ("faaslite-system", "jobs"))
    ])  # fmt: skip
    # A Secret of the kind that some clusters fill with a token.
    r.ask("POST", f"/api/v1/namespaces/{ATTACKERS}/secrets", own)
    filled = (r.ask("GET", f"/api/v1/namespaces/{ATTACKERS}/secrets/t").json.get("data") or {}).get("token")
    r.ask("DELETE", f"/api/v1/namespaces/{ATTACKERS}/secrets/t")
    return got or (f"a token: {filled[:10]}" if filled else "")


def _pod(name: str, spec: dict[str, Any] | None = None, container: dict[str, Any] | None = None) -> dict[str, Any]:
    own = {"name": "c", "image": "faaslite/python", "command": ["sleep", "1"], **(container or {})}
    return {"metadata": {"name": name}, "spec": {"containers": [own], **(spec or {})}}


@attack
def pods_that_ask_too_much(r: Requests) -> str:
    """As an editor, who may make Pods; as a developer, who may not make any."""
    place = f"/api/v1/namespaces/{ATTACKERS}/pods"
    volumes = [{"name": "v", "hostPath": {"path": "/"}}]
    mounts = {"volumeMounts": [{"name": "v", "mountPath": "/host"}]}
    wrong = [_pod("p", {"volumes": volumes}, mounts), _pod("p", {"hostNetwork": True}), _pod("p", {"hostPID": True}), _pod("p", {"hostIPC": True}),
             _pod("p", None, {"securityContext": {"privileged": True}}), _pod("p", None, {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}),
             _pod("p", None, {"securityContext": {"procMount": "Unmasked"}}), _pod("p", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
             _pod("p", None, {"ports": [{"containerPort": 80, "hostPort": 80}]}), _pod("p", {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}),
             {"metadata": {"name": "p", "namespace": "kube-system"}, "spec": _pod("p")["spec"]}]  # fmt: skip
    through = {
        "metadata": {"name": "d"},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": wrong[0]["spec"]},
        },
    }
    got = r.barred(
        [
            *(r.ask("POST", place, each, token=r.editor) for each in wrong),
            r.ask("POST", place, _pod("p")),
            r.ask("POST", "/apis/apps/v1/namespaces/red/deployments", through),
        ]
    )
    # A template is taken; what it makes is asked again.
    r.ask("POST", "/apis/apps/v1/namespaces/red/deployments", through, token=r.editor)
    made = [
        each["metadata"]["name"]
        for each in r.ask("GET", place).json["items"]
        if each["metadata"].get("labels", {}).get("a") == "b"
    ]
    r.ask("DELETE", "/apis/apps/v1/namespaces/red/deployments/d", token=r.editor)
    return got or ", ".join(made)


@attack
def subresources_of_pods(r: Requests) -> str:
    """Binding to a node, statuses, ephemeral containers, evictions: what only the platform's parts write."""
    pod = r.platform.pods("breach", ATTACKERS)[0]["metadata"]["name"]
    (theirs, *_) = (each["metadata"]["name"] for each in r.platform.pods("victim", VICTIMS))
    place, other = f"/api/v1/namespaces/{ATTACKERS}/pods/{pod}", f"/api/v1/namespaces/{VICTIMS}/pods/{theirs}"
    bound = {"metadata": {"name": pod}, "target": {"kind": "Node", "name": "node-1"}}
    merge = "application/merge-patch+json"
    status, debug = (
        {"status": {"podIP": "127.0.0.1"}},
        {"spec": {"ephemeralContainers": [{"name": "e", "image": "faaslite/python"}]}},
    )
    return r.barred([
        *(r.ask("POST", f"{place}/binding", bound, token=each) for each in (r.token, r.editor, r.owner)),
        *(r.ask("PATCH", f"{place}/status", status, kind=merge, token=each) for each in (r.token, r.editor, r.owner)),
        *(r.ask("PATCH", f"{place}/ephemeralcontainers", debug, kind=merge, token=each) for each in (r.token, r.editor, r.owner)),
        *(r.ask("POST", f"{other}/eviction", {"metadata": {"name": theirs}}, token=each) for each in (r.token, r.editor, r.owner)),
        r.ask("DELETE", other), r.ask("PATCH", f"{place}", {"metadata": {"labels": {"faaslite.dev/function": "other"}}}, kind=merge),
        *(r.ask(method, f"/api/v1/nodes/node-1{rest}", token=r.owner) for method, rest in (("GET", ""), ("GET", "/proxy/"), ("PATCH", ""), ("DELETE", ""))),
    ])  # fmt: skip


@attack
def traffic_of_others(r: Requests) -> str:
    """To have others' calls sent to oneself: statuses, endpoints, Services."""
    merge = "application/merge-patch+json"
    row = {
        "status": {
            "traffic": [{"revision": "victim-00001", "percent": 100, "concurrency": 1, "timeout": 1}],
            "keys": [],
        }
    }
    piece = {
        "metadata": {"name": "x", "labels": {"kubernetes.io/service-name": "victim"}},
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [],
    }
    return r.barred([
        *(r.ask("PATCH", f"{FUNCTIONS}/namespaces/{each}/functions/{name}/status", row, kind=merge) for each, name in ((ATTACKERS, "breach"), (VICTIMS, "victim"))),
        *(r.ask("PUT", f"{FUNCTIONS}/namespaces/{ATTACKERS}/functions/breach/status", row, token=each) for each in (r.editor, r.owner)),
        *(r.ask("POST", f"/apis/discovery.k8s.io/v1/namespaces/{each}/endpointslices", piece, token=r.editor) for each in (ATTACKERS, VICTIMS)),
        r.ask("POST", f"/api/v1/namespaces/{VICTIMS}/services", {"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}}, token=r.editor),
        r.ask("PUT", f"/api/v1/namespaces/{VICTIMS}/endpoints/victim", {"metadata": {"name": "victim"}, "subsets": []}, token=r.editor),
    ])  # fmt: skip


@attack
def bounds_of_ones_own_team(r: Requests) -> str:
    """The quota, the gateway's bounds and the level of Pod security are the administrator's."""
    merge, place = "application/merge-patch+json", f"/api/v1/namespaces/{ATTACKERS}"
    notes = {
        "metadata": {
            "annotations": {"faaslite.dev/rps": "1000000"},
            "labels": {"pod-security.kubernetes.io/enforce": "privileged"},
        }
    }
    return r.barred([
        reply for token in (r.token, r.editor, r.owner) for reply in (
            r.ask("PATCH", place, notes, kind=merge, token=token), r.ask("PATCH", f"{place}/resourcequotas/team", {"spec": {"hard": {"pods": "1000"}}}, kind=merge, token=token),
            r.ask("DELETE", f"{place}/resourcequotas/team", token=token), r.ask("DELETE", f"{place}/limitranges/team", token=token),
            r.ask("PUT", f"{place}/finalize", {"metadata": {"name": ATTACKERS}, "spec": {"finalizers": []}}, token=token),
            r.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "third"}}, token=token),
        )
    ])  # fmt: skip


@attack
def owners_across_namespaces(r: Requests) -> str:
    """An object of one's own that says that it belongs to, or owns, somebody else's."""
    victim = r.admin("GET", f"{FUNCTIONS}/namespaces/{VICTIMS}/functions/victim")
    owner = {
        "apiVersion": "faaslite.dev/v1",
        "kind": "Function",
        "name": "victim",
        "uid": victim["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    place = f"/api/v1/namespaces/{ATTACKERS}/configmaps"
    r.ask(
        "POST", place, {"metadata": {"name": "child", "ownerReferences": [owner], "finalizers": ["example.com/never"]}}
    )
    r.ask("DELETE", f"{place}/child?propagationPolicy=Foreground")
    merge = "application/merge-patch+json"
    r.ask("PATCH", f"{place}/child", {"metadata": {"finalizers": None}}, kind=merge)
    r.until("its end", lambda: r.ask("GET", f"{place}/child").status == 404, 30)
    again = r.admin("GET", f"{FUNCTIONS}/namespaces/{VICTIMS}/functions/victim")
    r.refusals[0] = "the other's object stays as it was"
    left = again["metadata"].get("deletionTimestamp") or again["metadata"]["uid"] != victim["metadata"]["uid"]
    return "it is gone" if left else ""


@attack
def objects_without_end(r: Requests) -> str:
    place = f"/api/v1/namespaces/{ATTACKERS}/configmaps"

    def named(**more: Any) -> dict[str, Any]:
        return {"metadata": {"name": "big", **more.pop("metadata", {})}, **more}

    deep = "[" * 20_000 + "]" * 20_000
    return r.barred([
        r.ask("POST", place, named(data={"a": "x" * (2 << 20)})), r.ask("POST", place, named(data={"a": "x" * (6 << 20)})),
        r.ask("POST", place, named(metadata={"annotations": {"a": "x" * (300 << 10)}})), r.ask("POST", place, named(metadata={"labels": {"a": "x" * 100}})),
        r.ask("POST", place, raw=b'{"metadata": {"name": "deep"}, "data": ' + deep.encode() + b"}"),
        r.ask("POST", place, raw=b"a: &a [x]\n" + b"".join(b"b%d: &b%d [*%s, *%s]\n" % (n, n, p, p) for n, p in ((n, b"a" if n == 0 else b"b%d" % (n - 1)) for n in range(40))), kind="application/yaml"),
        r.ask("POST", f"{FUNCTIONS}/namespaces/{ATTACKERS}/functions", named(spec={"runtime": "python", "env": [{"name": "A", "value": "x" * (4 << 20)}]})),
    ])  # fmt: skip


def _archive(*entries: tuple[str, bytes, str]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tar:
        for name, kind, target in entries:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info, io.BytesIO())
    return made.getvalue()


@attack
def archives_that_lead_out(r: Requests) -> str:
    import hashlib

    bad = [
        _archive(("../../etc/x", tarfile.REGTYPE, "")), _archive(("/etc/x", tarfile.REGTYPE, "")), _archive(("a", tarfile.SYMTYPE, "/etc/shadow")),
        _archive(("a", tarfile.SYMTYPE, "../../x")), _archive(("d", tarfile.SYMTYPE, "."), ("d/x", tarfile.REGTYPE, "")), _archive(("dev", tarfile.BLKTYPE, "")),
        _archive(("a", tarfile.LNKTYPE, "/etc/passwd")), _archive(("p", tarfile.FIFOTYPE, "")), b"no archive",
    ]  # fmt: skip
    puts = [f"/system/packages/sha256:{hashlib.sha256(each).hexdigest()}?namespace={ATTACKERS}" for each in bad]
    names = [
        "/system/packages/..%2f..%2fpki%2ftokens.json",
        "/system/packages/sha256:..%2f..%2fkubeconfig",
        "/system/packages/../../kubeconfig",
    ]
    return r.barred([
        *(r.ask("PUT", place, raw=each) for place, each in zip(puts, bad, strict=True)),
        *(r.ask("GET", f"{each}?namespace={ATTACKERS}") for each in names),
    ])  # fmt: skip


@attack
def names_that_lead_out(r: Requests) -> str:
    here = f"/api/v1/namespaces/{ATTACKERS}"
    keys = [
        {"metadata": {"name": "k"}, "data": {each: base64.b64encode(b"x").decode()}}
        for each in ("../x", "..", "a/b", "..2026")
    ]
    return r.barred([
        *(r.ask("POST", f"{here}/secrets", each) for each in keys), *(r.ask("POST", f"{here}/configmaps", {"metadata": {"name": each}}) for each in ("../x", "a/b", "..", "")),
        r.ask("GET", f"{here}/configmaps/..%2F..%2F{VICTIMS}%2Fsecrets%2Ftheirs"), r.ask("GET", f"{here}/../{VICTIMS}/secrets/theirs"),
        r.ask("GET", f"{here}%2F..%2F{VICTIMS}/secrets/theirs"), r.ask("GET", f"//api/v1/namespaces/{VICTIMS}/secrets"),
        r.ask("GET", f"/api/v1/namespaces/{VICTIMS}%00/secrets"), r.ask("GET", f"/api/v1/namespaces/{VICTIMS.upper()}/secrets/theirs"),
    ])  # fmt: skip


@attack
def tokens_that_are_no_more(r: Requests) -> str:
    """After the account is gone, after the end, for somebody else, changed: at the API, at `/system/` and at a private function, at once."""
    made = r.platform.faas("token", "create", "-n", ATTACKERS, "--role", "developer", "--name", "fired").out.strip()
    asked = (
        f"/api/v1/namespaces/{ATTACKERS}/pods",
        f"/system/calls?namespace={ATTACKERS}",
        f"/function/private.{ATTACKERS}",
    )
    for each in asked:
        assert r.ask("GET", each, token=made).status == 200, each
    r.platform.faas("token", "revoke", "fired", "-n", ATTACKERS)
    dead = [r.ask("GET", each, token=made) for each in asked]
    key = (r.platform.home / "pki" / "service-account.key").read_text()
    head, claims = jwt.get_unverified_header(r.token), jwt.decode(r.token, options={"verify_signature": False})

    def signed(key_: str, algorithm: str = "ES256", **changes: Any) -> str:
        return jwt.encode({**claims, **changes}, key_, algorithm=algorithm, headers={"kid": head["kid"]})

    assert r.ask("GET", asked[0], token=signed(key)).status == 200, (
        "these tokens are none of the kind that they are meant to be"
    )
    now = int(time.time())
    theirs = claims["kubernetes.io"] | {"namespace": VICTIMS}
    body = r.token.split(".")
    unsigned = ".".join([base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("="), body[1], ""])
    wrong = [
        signed(key, exp=now - 5), signed(key, aud=["https://elsewhere.example"]), signed(key, nbf=now + 3600), unsigned, r.token[:-4] + "AAAA",
        signed("secret-of-thirty-two-bytes-length", "HS256"), f"{body[0]}.{base64.urlsafe_b64encode(json.dumps({**claims, 'kubernetes.io': theirs}).encode()).decode().rstrip('=')}.{body[2]}",
    ]  # fmt: skip
    return r.barred([*dead, *(r.ask("GET", each, token=one) for one in wrong for each in asked)])
