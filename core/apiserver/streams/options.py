"""The options of a connection (`PodExecOptions` and the like): what admission webhooks are shown of `CONNECT`, made of the query and turned into one again. Pure."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from core.apiserver.dispatch import truth

__all__ = ["connect_options", "options_query"]

Document = dict[str, Any]
Pairs = list[tuple[str, str]]
_KINDS = {"exec": "Exec", "attach": "Attach", "portforward": "PortForward", "proxy": "Proxy"}
_FLAGS = {"stdin": "false", "stdout": "true", "stderr": "true", "tty": "false"}


def connect_options(kind: str, subresource: str, query: Pairs, path: str) -> Document:
    """Of a connection to an object of `kind`; `path` is the part of a proxied one that is behind `proxy`, still encoded. What isn't right in
    the query is left out: it is refused later, in the words of whoever reads it."""
    found: Document = {"kind": f"{kind}{_KINDS[subresource]}Options", "apiVersion": "v1"}
    if subresource == "proxy":
        return {**found, "path": unquote(path)} if path else found
    if subresource == "portforward":
        texts = [text for name, value in query if name in ("ports", "port") for text in value.split(",")]
        ports = [int(text) for text in texts if text.isascii() and text.isdecimal() and len(text) <= 5]
        return {**found, "ports": ports} if ports else found
    said = dict(query)
    found |= {name: True for name, default in _FLAGS.items() if truth(said.get(name) or default)}
    if container := said.get("container"):
        found["container"] = container
    if subresource == "exec":
        found["command"] = [value for name, value in query if name == "command"]
    return found


def options_query(options: Document) -> Pairs:
    """The query that asks for these options, for `exec`, `attach` and `portforward`."""
    found = [("ports", str(each)) for each in options.get("ports") or ()]
    found += [(name, "true" if options.get(name) else "false") for name in _FLAGS]
    if container := options.get("container"):
        found.append(("container", str(container)))
    return found + [("command", str(each)) for each in options.get("command") or ()]
