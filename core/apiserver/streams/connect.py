"""`exec`, `attach` and `portforward` of Pods: checked here, then the client and the Pod's node speak with each other.

The request goes on to the node agent as it came but for its credentials, over the kubelet's paths (`/exec/...`, `/attach/...`,
`/portForward/...`), and once the node agrees its reply and everything after it is copied both ways, whatever protocol they chose. So the
node alone knows of channels, and nothing is decoded twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode

from core.apiserver.dispatch import truth
from core.apiserver.registry.generic import Registry
from core.apiserver.request import ApiRequest, Upgrade
from core.apiserver.served import Served
from core.apiserver.streams.log import KubeletConnector, choose_container, kubelet_of
from core.errors import BadRequest, ServiceUnavailable
from core.upgrade import Upgraded, splice

__all__ = ["PodConnections", "Tunnel", "exec_query", "ports_query"]

Document = dict[str, Any]
Pairs = list[tuple[str, str]]
_PASSED = ("upgrade", "connection", "user-agent")
_PASSED_PREFIXES = ("sec-websocket-", "x-stream-protocol-version")
_NOT_PASSED = ("sec-websocket-extensions",)
_ENDED = ("Succeeded", "Failed")


class Tunnel(NamedTuple):
    """A node that has agreed, and the client who asked for it."""

    node: Upgraded
    upgrade: Upgrade

    async def run(self) -> None:
        """Until one of them ends. The client's connection is taken over here."""
        try:
            client = self.upgrade.take()
        except BaseException:
            self.node.writer.transport.abort()
            raise
        try:
            client[1].write(self.node.head)
            await splice(client, (self.node.reader, self.node.writer))
        finally:
            self.node.writer.transport.abort()
            client[1].transport.abort()


def exec_query(query: Pairs, *, command: bool) -> Pairs:
    """The kubelet's form of `PodExecOptions` or `PodAttachOptions`. Raises `BadRequest`."""
    said: Mapping[str, str] = dict(query)
    defaults = {"stdin": "false", "stdout": "true", "stderr": "true", "tty": "false"}
    wants = {name: truth(said.get(name) or default) for name, default in defaults.items()}
    if command and not any(name == "command" and value for name, value in query):
        raise BadRequest("you must specify at least 1 command for the container")
    if not (wants["stdin"] or wants["stdout"] or wants["stderr"]):
        raise BadRequest("you must specify at least 1 of stdin, stdout, stderr")
    passed = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
    found = [(other, "1") for name, other in passed.items() if wants[name]]
    return found + [(name, value) for name, value in query if command and name == "command"]


def ports_query(query: Pairs) -> Pairs:
    """The kubelet's form of `PodPortForwardOptions`: none where the client names ports as it goes. Raises `BadRequest`."""
    found: Pairs = []
    for name, value in query:
        if name not in ("ports", "port"):
            continue
        for text in value.split(","):
            if not (text.isascii() and text.isdecimal()) or len(text) > 5 or not 0 < int(text) < 65536:
                raise BadRequest(f"unable to parse {text!r} as a port: it is a number from 1 to 65535")
            found.append(("port", str(int(text))))
    return found


def passed_headers(headers: Sequence[tuple[bytes, bytes]]) -> Pairs:
    """What of the client's request the node needs; never who it is, nor extensions, which the node has none of."""
    found = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return [
        (name, value)
        for name, value in found
        if (name in _PASSED or name.startswith(_PASSED_PREFIXES)) and name not in _NOT_PASSED
    ]


class PodConnections:
    def __init__(self, served: Served, kubelet: KubeletConnector | None) -> None:
        self._served = served
        self._kubelet = kubelet

    async def open(self, registry: Registry, request: ApiRequest) -> Tunnel:
        """Once the node has agreed. Raises `ApiError`."""
        info, upgrade = request.info, request.upgrade
        pod = registry.codec.document(await registry.get(info.namespace, info.name))
        query = parse_qsl(upgrade.query if upgrade else "", keep_blank_values=True)
        place = [info.namespace, info.name]
        if info.subresource == "portforward":
            path, passed = "portForward", ports_query(query)
        else:
            path, passed = info.subresource, exec_query(query, command=info.subresource == "exec")
            place.append(choose_container(pod, request.query.get("container", "")))
        if upgrade is None:
            raise BadRequest("Upgrade request required")
        node_name = pod["spec"].get("nodeName")
        if not node_name:
            raise BadRequest(f"pod {info.name} does not have a host assigned")
        phase = (pod.get("status") or {}).get("phase")
        if phase in _ENDED:
            doing = "forward port" if path == "portForward" else f"{path} into a container"
            raise BadRequest(f"cannot {doing}: pod {info.name} has ended; its phase is {phase}")
        if self._kubelet is None:
            raise ServiceUnavailable("this API server has no way to reach nodes")
        address = await kubelet_of(self._served, node_name)
        target = "/" + "/".join(quote(each, safe="") for each in (path, *place))
        headers = [("host", f"{address[0]}:{address[1]}"), ("content-length", "0"), *passed_headers(upgrade.headers)]
        node = await self._kubelet.upgrade(node_name, address, upgrade.method, f"{target}?{urlencode(passed)}", headers)
        return Tunnel(node, upgrade)
