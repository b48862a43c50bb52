"""Defaults of Pods and Pod templates, after the documentation of the fields in the Kubernetes API reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["all_containers", "complete_pod_spec", "complete_requests", "quality_of_service"]

Document = dict[str, Any]

_VOLUME_MODES = {"secret": 0o644, "configMap": 0o644, "downwardAPI": 0o644, "projected": 0o644}
_CPU_AND_MEMORY = ("cpu", "memory")


def all_containers(spec: Document) -> Iterator[tuple[str, Document]]:
    """(field, container) of every container, the init ones first."""
    for field in ("initContainers", "containers", "ephemeralContainers"):
        for index, each in enumerate(spec.get(field) or ()):
            yield f"{field}[{index}]", each


def _pull_policy(image: str) -> str:
    """Always for the tag latest, said or not; IfNotPresent for other tags and digests."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _complete_probe(probe: Document) -> None:
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(key):
            probe[key] = value
    _complete_handler(probe)


def _complete_handler(handler: Document) -> None:
    if (get := handler.get("httpGet")) is not None:
        get.setdefault("path", "/")
        get.setdefault("scheme", "HTTP")
    if (call := handler.get("grpc")) is not None:
        call.setdefault("service", "")


def complete_requests(spec: Document) -> None:
    """A Pod's requests are its limits where they say nothing; templates stay as they are. The amounts are canonical already."""
    for _, container in all_containers(spec):
        resources = container["resources"]
        if limits := resources.get("limits"):
            resources["requests"] = {**limits, **(resources.get("requests") or {})}


def _complete_container(container: Document) -> None:
    if not container.get("imagePullPolicy"):
        container["imagePullPolicy"] = _pull_policy(str(container.get("image") or ""))
    if not container.get("terminationMessagePath"):
        container["terminationMessagePath"] = "/dev/termination-log"
    if not container.get("terminationMessagePolicy"):
        container["terminationMessagePolicy"] = "File"
    for port in container.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(probe) is not None:
            _complete_probe(container[probe])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _complete_handler(hook)
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None and not reference.get("apiVersion"):
            reference["apiVersion"] = "v1"
    container.setdefault("resources", {})


def _complete_volume(volume: Document) -> None:
    sources = [key for key in volume if key != "name"]
    if not sources:
        volume["emptyDir"] = {}
    for key in sources:
        source = volume[key]
        if not isinstance(source, dict):
            continue
        if key in _VOLUME_MODES and source.get("defaultMode") is None:
            source["defaultMode"] = _VOLUME_MODES[key]
        if key == "hostPath" and source.get("type") is None:
            source["type"] = ""
        if key == "projected":
            for each in source.get("sources") or ():
                token = each.get("serviceAccountToken")
                if token is not None and not token.get("expirationSeconds"):
                    token["expirationSeconds"] = 3600
                _complete_items(each.get("downwardAPI"))
        if key == "downwardAPI":
            _complete_items(source)


def _complete_items(source: Document | None) -> None:
    for item in (source or {}).get("items") or ():
        if (reference := item.get("fieldRef")) is not None and not reference.get("apiVersion"):
            reference["apiVersion"] = "v1"


def complete_pod_spec(spec: Document) -> None:
    """What is stored where a Pod or a template says nothing."""
    for key, value in (
        ("restartPolicy", "Always"), ("dnsPolicy", "ClusterFirst"), ("schedulerName", "default-scheduler"),
    ):  # fmt: skip
        if not spec.get(key):
            spec[key] = value
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = 30
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    # The old name of the field is kept beside the new one.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for volume in spec.get("volumes") or ():
        _complete_volume(volume)
    for _, container in all_containers(spec):
        _complete_container(container)


def quality_of_service(spec: Document) -> str:
    """Guaranteed, Burstable or BestEffort (https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/)."""
    guaranteed, anything = True, False
    for _, container in all_containers(spec):
        resources = container.get("resources") or {}
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for key in _CPU_AND_MEMORY:
            limit, request = limits.get(key, "0"), requests.get(key, "0")
            anything = anything or limit != "0" or request != "0"
            guaranteed = guaranteed and limit != "0" and limit == request
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
