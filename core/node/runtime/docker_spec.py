"""What the Docker engine is asked for: labels, names, the body of a container's creation. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.clock import parse_time
from core.node.runtime.base import ContainerInfo, ContainerSpec, ContainerState, SandboxSpec
from core.node.runtime.docker_seccomp import profile_text

__all__ = [
    "LABEL_NODE", "NOTIFY_FOLDER", "container_body", "container_info", "container_name", "label_filter", "normal_image", "pause_body", "when",
]  # fmt: skip

LABEL = "faaslite.dev/"
LABEL_NODE = LABEL + "node"
LABEL_CLUSTER = LABEL + "cluster"
LABEL_SLOT = LABEL + "slot"
"""On a container that was started before its Pod came: the name of its folder."""
LABEL_WAITING = LABEL + "waiting"
"""On an image: the command (a JSON list) by which a container of it waits for its Pod."""
LABEL_UID = LABEL + "pod-uid"
LABEL_POD = LABEL + "pod-name"
LABEL_NAMESPACE = LABEL + "pod-namespace"
LABEL_CONTAINER = LABEL + "container"
LABEL_ATTEMPT = LABEL + "attempt"
LABEL_ADDRESS = LABEL + "address"
LABEL_LOGS = LABEL + "log-dir"
LABEL_SOLITARY = LABEL + "solitary"
LABEL_TTY = LABEL + "tty"
PAUSE = ""
"""The container name of a sandbox's pause container."""
NOTIFY_FOLDER = "/run/faaslite"
LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "16m", "max-file": "2"}}
SECURITY = ["no-new-privileges", f"seccomp={profile_text()}"]
PIDS = 1024
"""Processes and threads that one container may have at a time."""


def normal_image(image: str) -> str:
    """`faaslite/python` -> `faaslite/python:latest`; names with a tag or digest stay."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def label_filter(node: str) -> str:
    return f"{LABEL_NODE}={node}"


def container_name(uid: str, container: str, attempt: int) -> str:
    return f"faaslite-{uid}-{container}-{attempt}" if container else f"faaslite-{uid}"


def slot_name(slot: str) -> str:
    """A container that waits for its Pod."""
    return f"faaslite-waiting-{slot}"


def sandbox_labels(node: str, spec: SandboxSpec, address: str) -> dict[str, str]:
    """All that must be known of a sandbox to find it again."""
    return {
        LABEL_NODE: node,
        LABEL_UID: spec.uid,
        LABEL_POD: spec.name,
        LABEL_NAMESPACE: spec.namespace,
        LABEL_ADDRESS: address,
        LABEL_LOGS: spec.log_dir,
        LABEL_SOLITARY: "true" if spec.solitary else "false",
    }


def container_labels(spec: ContainerSpec) -> dict[str, str]:
    return {
        LABEL_CONTAINER: spec.name,
        LABEL_ATTEMPT: str(spec.attempt),
        LABEL_TTY: "true" if spec.tty else "false",
    }


def scratch_options(size: int) -> str:
    """Of a file system in memory that anybody in the container may write; what lies in it counts as the container's memory."""
    return f"rw,nosuid,nodev,exec,size={size},mode=1777"


def _endpoint(network: str, address: str) -> dict[str, Any]:
    return {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": address}}}}


def _network(spec: SandboxSpec, network: str) -> dict[str, Any]:
    found: dict[str, Any] = {"NetworkMode": network}
    if spec.dns_servers:
        found |= {"Dns": list(spec.dns_servers), "DnsSearch": list(spec.dns_searches), "DnsOptions": ["ndots:5"]}
    return found


def pause_body(spec: SandboxSpec, labels: Mapping[str, str], image: str, network: str, address: str) -> dict[str, Any]:
    """The container that holds the network of a Pod with several containers."""
    return {
        "Image": image,
        "Entrypoint": ["sleep", "infinity"],
        "Cmd": [],
        "User": "65534:65534",
        "Hostname": spec.hostname,
        "Labels": {**labels, LABEL_CONTAINER: PAUSE, LABEL_ATTEMPT: "0"},
        "HostConfig": {
            **_network(spec, network),
            "LogConfig": {"Type": "none", "Config": {}},
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": SECURITY,
            "PidsLimit": 16,
            "IpcMode": "shareable",
        },
        "NetworkingConfig": _endpoint(network, address),
    }


def container_body(
    sandbox: SandboxSpec,
    spec: ContainerSpec,
    labels: Mapping[str, str],
    *,
    network: str,
    address: str,
    pause: str,
    notify: str,
    termination: str,
    joined: str = "",
    target: str = "",
) -> dict[str, Any]:
    """One container. `pause` is the id of the container whose network it shares, "" where it has the Pod's network itself;
    `notify` and `termination` are host paths. One that is added to a Pod without such a container has the network of `joined`, and sees
    the processes of `target` (ids, too)."""
    host: dict[str, Any] = {
        "LogConfig": LOG_CONFIG,
        "SecurityOpt": SECURITY,
        "ReadonlyRootfs": spec.read_only_root,
        "PidsLimit": PIDS,
        "Mounts": [
            *(
                {"Type": "bind", "Source": each.host_path, "Target": each.container_path, "ReadOnly": each.read_only}
                for each in spec.mounts
                if not each.scratch
            ),
            {"Type": "bind", "Source": notify, "Target": NOTIFY_FOLDER, "ReadOnly": True},
            {"Type": "bind", "Source": termination, "Target": spec.termination_message_path},
        ],
    }  # fmt: skip
    body: dict[str, Any] = {
        "Image": normal_image(spec.image),
        "Env": [f"{name}={value}" for name, value in spec.env.items()] + [f"NOTIFY_SOCKET={NOTIFY_FOLDER}/notify"],
        "Labels": {**labels, **container_labels(spec)},
        "HostConfig": host,
        "Tty": spec.tty,
        "OpenStdin": spec.stdin,
        "StdinOnce": spec.stdin_once,
    }
    if pause:
        host["NetworkMode"] = f"container:{pause}"
        host["IpcMode"] = f"container:{pause}"
    elif joined:
        host["NetworkMode"] = f"container:{joined}"
    else:
        host |= _network(sandbox, network)
        body |= {"Hostname": sandbox.hostname, "NetworkingConfig": _endpoint(network, address)}
    if target:
        host["PidMode"] = f"container:{target}"
    if scratches := {each.container_path: scratch_options(each.scratch) for each in spec.mounts if each.scratch}:
        host["Tmpfs"] = scratches
    if spec.no_capabilities or spec.user not in (None, 0):
        host["CapDrop"] = ["ALL"]
    if spec.user is not None:
        body["User"] = f"{spec.user}:{spec.group}" if spec.group is not None else str(spec.user)
    if spec.memory:
        host |= {"Memory": spec.memory, "MemorySwap": spec.memory}
    if spec.cpu:
        host["NanoCpus"] = int(spec.cpu * 1e9)
    if spec.cpu_request or spec.cpu:
        host["CpuShares"] = max(int((spec.cpu_request or spec.cpu) * 1024), 2)
    for key, value in (
        ("Entrypoint", list(spec.command)),
        ("Cmd", list(spec.args)),
        ("WorkingDir", spec.working_dir),
        ("StopSignal", spec.stop_signal),
    ):
        if value:
            body[key] = value
    return body


def when(text: str) -> float:
    """Seconds since the epoch of the engine's times; 0 for its zero time."""
    if not text or text.startswith("0001-"):
        return 0.0
    # Nanoseconds, of which Python reads no more than six digits.
    return parse_time(re.sub(r"(\.\d{6})\d+", r"\1", text))


def container_info(inspected: Mapping[str, Any], *, message: str, ready: bool) -> ContainerInfo:
    """From what the engine answers to an inspection."""
    labels, state = inspected["Config"]["Labels"], inspected["State"]
    status = state["Status"]
    found = ContainerState.RUNNING if status in ("running", "paused", "restarting") else ContainerState.EXITED
    if status == "created" and not state.get("ExitCode"):
        found = ContainerState.CREATED
    started = when(state.get("StartedAt", ""))
    return ContainerInfo(
        id=inspected["Id"],
        name=labels[LABEL_CONTAINER],
        sandbox_id=labels[LABEL_UID],
        state=found,
        image=inspected["Config"]["Image"],
        image_id=inspected["Image"],
        attempt=int(labels[LABEL_ATTEMPT]),
        created_at=when(inspected["Created"]),
        started_at=started,
        # The engine notes a start once it has heard of it, which may be after the end of a short life.
        finished_at=max(when(state.get("FinishedAt", "")), started) if found is ContainerState.EXITED else 0.0,
        exit_code=state.get("ExitCode") if found is ContainerState.EXITED else None,
        oom_killed=bool(state.get("OOMKilled")),
        message=message,
        announced_ready=ready,
    )
