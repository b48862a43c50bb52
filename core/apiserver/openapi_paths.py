"""The paths of an OpenAPI document: what each takes and answers, in Kubernetes' names. Pure.

Clients look for parameters (`fieldValidation`, `dryRun`), for the types of patches, and for the kind that an operation is about;
generators and checkers want the rest: bodies for every content type, answers, and a name for each operation that no other has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from core.api.kinds import Kind
from core.apiserver import discovery, schema
from core.apiserver.openapi_types import Components, gvk, ref

__all__ = ["paths"]

Item = dict[str, Any]


def _query(name: str, type_: str, text: str) -> Item:
    return {"name": name, "in": "query", "description": text, "schema": {"type": type_, "uniqueItems": True}}


def _in_path(name: str, text: str) -> Item:
    return {
        "name": name,
        "in": "path",
        "description": text,
        "required": True,
        "schema": {"type": "string", "uniqueItems": True},
    }


_PRETTY = _query("pretty", "string", "If 'true', then the output is pretty printed.")
_DRY_RUN = _query("dryRun", "string", "With the value All nothing is stored; the answer is what would have been.")
_LIST = [
    _query("allowWatchBookmarks", "boolean", "Events of type BOOKMARK may be sent, which carry a resourceVersion alone."),
    _query("continue", "string", "Where to go on: the token of the page before."),
    _query("fieldSelector", "string", "Only objects whose fields are so. All by default."),
    _query("labelSelector", "string", "Only objects whose labels are so. All by default."),
    _query("limit", "integer", "How many objects a page has at most."),
    _query("resourceVersion", "string", "How new the answer must be, or where a watch begins."),
    _query("resourceVersionMatch", "string", "How resourceVersion is meant: Exact or NotOlderThan."),
    _query("sendInitialEvents", "boolean", "A watch begins with what there is, and says with a bookmark when all is told."),
    _query("timeoutSeconds", "integer", "How long the call may take."),
]  # fmt: skip
_WATCH = _query("watch", "boolean", "A stream of changes instead of a list.")
_WRITE = [
    _DRY_RUN,
    _query("fieldManager", "string", "Who writes, for managedFields."),
    _query("fieldValidation", "string", "What unknown and duplicate fields are: Ignore, Warn or Strict."),
]  # fmt: skip
_FORCE = _query("force", "boolean", "Of an apply: take fields from other managers.")
_DELETE = [
    _DRY_RUN,
    _query("gracePeriodSeconds", "integer", "Seconds that the object has to end. 0 is at once."),
    _query("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean", "Accepted, and without effect: there are no objects that can't be read."),
    _query("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    _query("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
]  # fmt: skip
_STREAMS = [
    _query("container", "string", "The container; the only one by default."),
    _query("stderr", "boolean", "Whether its standard error is wanted."),
    _query("stdin", "boolean", "Whether its standard input is given."),
    _query("stdout", "boolean", "Whether its standard output is wanted."),
    _query("tty", "boolean", "Whether it has a terminal."),
]  # fmt: skip
_BELOW = {
    "attach": _STREAMS,
    "exec": [_query("command", "string", "What to run, a word each."), *_STREAMS],
    "portforward": [_query("ports", "integer", "The ports.")],
    "proxy": [_query("path", "string", "The path to ask for.")],
    "log": [
        _query("container", "string", "The container; the only one by default."),
        _query("follow", "boolean", "Go on with what is written from now on."),
        _query("insecureSkipTLSVerifyBackend", "boolean", "Accepted, and without effect: the node's certificate is always checked."),
        _query("limitBytes", "integer", "How many bytes at most."),
        _query("previous", "boolean", "Of the attempt before."),
        _query("sinceSeconds", "integer", "Only what is newer than so many seconds."),
        _query("sinceTime", "string", "Only what is newer than that time."),
        _query("tailLines", "integer", "How many lines from the end."),
        _query("timestamps", "boolean", "With the time of each line."),
    ],
}  # fmt: skip
"""The options of subresources."""

_PATCH_TYPES = (
    "application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)  # fmt: skip
_BODY_TYPES = ("application/json", "application/yaml", "application/vnd.kubernetes.protobuf")
_METHODS = {"list": "get", "get": "get", "create": "post", "update": "put", "patch": "patch", "delete": "delete", "deletecollection": "delete"}  # fmt: skip
_ACTIONS = {"create": "post", "update": "put"}
_WORDS = {"get": "read", "update": "replace"}


def paths(kind: Kind, component: str, components: Components) -> Iterator[tuple[str, Item]]:
    """The paths of `kind`, whose objects are `component`."""
    made = _Paths(kind, component, components)
    yield from made.collections()
    yield from made.objects()
    for name in kind.subresources:
        yield from made.below(name)


def _title(group: str) -> str:
    """`RbacAuthorization` of `rbac.authorization.k8s.io`."""
    return "".join(part[:1].upper() + part[1:] for part in group.removesuffix(".k8s.io").replace("-", ".").split(".")) or "Core"  # fmt: skip


class _Paths:
    def __init__(self, kind: Kind, component: str, components: Components) -> None:
        self._kind = kind
        self._own = component
        self._components = components
        self._about = gvk(kind.group, kind.version, kind.kind)
        self._space = [_in_path("namespace", "The namespace.")] if kind.namespaced else []
        self._name = _in_path("name", f"The name of the {kind.kind}.")
        self._root = kind.path("{namespace}" if kind.namespaced else "")
        self._prefix = f"{_title(kind.group)}{kind.version[:1].upper()}{kind.version[1:]}"
        self._scope = "Namespaced" if kind.namespaced else ""
        self._tag = f"{_title(kind.group)[:1].lower()}{_title(kind.group)[1:]}_{kind.version}"

    def collections(self) -> Iterator[tuple[str, Item]]:
        kind, found = self._kind, {}
        for verb in ("list", "create", "deletecollection"):
            if verb in kind.verbs:
                found[_METHODS[verb]] = self._operation(verb, self._scope)
        if found:
            yield self._root, {**found, "parameters": [*self._space, _PRETTY]}
        if kind.namespaced and "list" in kind.verbs:
            everywhere = self._operation("list", "", suffix="ForAllNamespaces")
            yield kind.path(), {"get": everywhere, "parameters": [_PRETTY]}

    def objects(self) -> Iterator[tuple[str, Item]]:
        found = {
            _METHODS[verb]: self._operation(verb, self._scope)
            for verb in ("get", "update", "patch", "delete")
            if verb in self._kind.verbs
        }
        if found:
            yield f"{self._root}/{{name}}", {**found, "parameters": [self._name, *self._space, _PRETTY]}

    def below(self, name: str) -> Iterator[tuple[str, Item]]:
        about = discovery.subresource_kind(self._kind, name)
        whole = about == (self._kind.group, self._kind.version, self._kind.kind)
        speaks = self._own if whole else self._components.add_response(*about)
        verbs, label = discovery.subresource_verbs(self._kind, name), name[:1].upper() + name[1:]
        at, parameters = f"{self._root}/{{name}}/{name}", [self._name, *self._space]
        if name in ("attach", "exec", "portforward", "proxy"):
            yield at, {**self._connections(name, label, gvk(*about), verbs), "parameters": [*parameters, *_BELOW[name]]}
            if name == "proxy":
                rest = {**_in_path("path", "The path to ask for."), "x-kubernetes-rest": True}
                found = self._connections(name, f"{label}WithPath", gvk(*about), verbs)
                yield f"{at}/{{path}}", {**found, "parameters": [*parameters, rest, *_BELOW[name]]}
            return
        found = {
            _METHODS[verb]: self._operation(
                verb, self._scope, label, gvk(*about), "" if name == "log" else speaks or ""
            )
            for verb in ("get", "create", "update", "patch")
            if verb in verbs
        }
        yield at, {**found, "parameters": [*parameters, *_BELOW.get(name, ()), _PRETTY]}

    def _connections(self, name: str, label: str, about: dict[str, str], verbs: Sequence[str]) -> Item:
        return {
            method: {
                "tags": [self._tag],
                "description": f"connect {method.upper()} requests to {name} of {self._kind.kind}",
                "operationId": f"connect{self._prefix}{method.capitalize()}{self._scope}{self._kind.kind}{label}",
                "responses": {"200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}}, **self._failures()},
                "x-kubernetes-action": "connect",
                "x-kubernetes-group-version-kind": about,
            }
            for method in dict.fromkeys(_METHODS[verb] for verb in verbs)
        }  # fmt: skip

    def _operation(
        self, verb: str, scope: str, label: str = "", about: dict[str, str] | None = None, speaks: str | None = None,
        suffix: str = "",
    ) -> Item:  # fmt: skip
        kind, about = self._kind, about or self._about
        speaks = self._own if speaks is None else speaks
        word = "deleteCollection" if verb == "deletecollection" else _WORDS.get(verb, verb)
        start = f"delete{self._prefix}Collection" if verb == "deletecollection" else f"{word}{self._prefix}"
        found: Item = {
            "tags": [self._tag],
            "description": self._text(verb, label),
            "operationId": f"{start}{scope}{kind.kind}{label}{suffix}",
            "parameters": self._parameters(verb),
            "responses": {**self._answers(verb, speaks, bool(label)), **self._failures()},
            "x-kubernetes-action": _ACTIONS.get(verb, verb),
            "x-kubernetes-group-version-kind": about,
        }
        if verb in ("create", "update") and speaks:
            found["requestBody"] = {"content": _bodies(speaks), "required": True}
        elif verb == "patch":
            # `kubectl apply` sends a strategic merge where it is offered; only built-in types have its merge keys.
            built_in = schema.load().of(about["group"], about["version"], about["kind"]) is not None
            types = [each for each in _PATCH_TYPES if built_in or "strategic" not in each]
            patches = {each: {"schema": ref(self._patch())} for each in types}
            found["requestBody"] = {"content": patches, "required": True}
        elif verb in ("delete", "deletecollection"):
            options = self._components.add_named(
                "meta.v1.DeleteOptions", gvk(kind.group, kind.version, "DeleteOptions")
            )
            found["requestBody"] = {"content": _bodies(options)}
        return found

    def _text(self, verb: str, label: str) -> str:
        of = f"{label.lower()} of " if label else ""
        objects = "list or watch objects of kind" if verb == "list" else "delete collection of"
        words = {
            "get": "read",
            "update": "replace",
            "patch": "partially update",
            "create": "create",
            "delete": "delete",
        }
        return f"{words[verb]} {of}the specified {self._kind.kind}" if verb in words and verb != "create" else (
            f"create {of}a {self._kind.kind}" if verb == "create" else f"{objects} {self._kind.kind}"
        )  # fmt: skip

    def _parameters(self, verb: str) -> list[Item]:
        if verb == "list":
            return (
                [*_LIST, _WATCH]
                if "watch" in self._kind.verbs
                else [each for each in _LIST if "Selector" in each["name"]]
            )
        if verb == "deletecollection":
            return [*_DELETE, *(each for each in _LIST if each["name"] != "allowWatchBookmarks")]
        return {"create": _WRITE, "update": _WRITE, "patch": [*_WRITE, _FORCE], "delete": _DELETE}.get(verb, [])

    def _answers(self, verb: str, speaks: str, below: bool) -> Item:
        if not speaks:
            return {"200": _answer("OK", {"text/plain": {"schema": {"type": "string"}}})}
        if verb == "list":
            listed = {"schema": ref(self._components.add_list(self._kind, self._own))}
            media = {"application/json": listed}
            if "watch" in self._kind.verbs:
                media["application/json;stream=watch"] = listed
            return {"200": _answer("OK", media)}
        if verb in ("delete", "deletecollection"):
            status = self._components.add_named("meta.v1.Status")
            shown: Item = {"oneOf": [ref(status), ref(self._own)]}
            if verb == "deletecollection":
                shown = {"oneOf": [ref(status), ref(self._components.add_list(self._kind, self._own))]}
            codes = ("200", "202") if verb == "delete" else ("200",)
            return {
                code: _answer("OK" if code == "200" else "Accepted", {"application/json": {"schema": shown}})
                for code in codes
            }
        names = {"create": ("200", "201", "202"), "update": ("200", "201"), "patch": ("200", "201")}.get(verb, ("200",))
        words = {"200": "OK", "201": "Created", "202": "Accepted"}
        schemas = ref(speaks)
        if verb == "create" and below:
            # A Binding or an Eviction is answered by a Status, a TokenRequest by itself.
            schemas = {"oneOf": [ref(speaks), ref(self._components.add_named("meta.v1.Status"))]}
        return {code: _answer(words[code], {"application/json": {"schema": schemas}}) for code in names}

    def _failures(self) -> Item:
        status = {"application/json": {"schema": ref(self._components.add_named("meta.v1.Status"))}}
        return {
            "401": {"description": "Unauthorized", "content": status},
            "default": _answer("Why it could not be done", status),
        }

    def _patch(self) -> str:
        name = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch"
        text = "Patch is provided to give a concrete name and type to the Kubernetes PATCH request body."
        self._components.found.setdefault(name, {"description": text})
        return name


def _answer(text: str, content: Item) -> Item:
    return {"description": text, "content": content}


def _bodies(component: str) -> Item:
    found: Item = {each: {"schema": ref(component)} for each in _BODY_TYPES[:2]}
    found[_BODY_TYPES[2]] = {"schema": {"type": "string", "format": "binary"}}
    return found
