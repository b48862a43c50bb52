"""What a Pod's or a template's spec may say, with the causes in Kubernetes' words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.api.quantity import parse
from core.apiserver.registry.names import check_labels, label, subdomain
from core.apiserver.registry.pod_defaults import all_containers
from core.apiserver.status import duplicate, forbidden, invalid_value, not_supported, required, unknown_value

__all__ = ["validate_pod_spec"]

Document = dict[str, Any]
Cause = dict[str, str]

_PORTS = "must be between 1 and 65535, inclusive"
_NOT_NEGATIVE = "must be greater than or equal to 0"
_CHOICES = (
    ("restartPolicy", ("Always", "OnFailure", "Never")),
    ("dnsPolicy", ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")),
)
_CONTAINER_CHOICES = (
    ("imagePullPolicy", ("Always", "IfNotPresent", "Never")),
    ("terminationMessagePolicy", ("File", "FallbackToLogsOnError")),
)
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")


def _quantities(resources: Document, at: str) -> Iterator[Cause]:
    values: dict[str, Document] = {"limits": {}, "requests": {}}
    for part, parsed in values.items():
        for key, amount in (resources.get(part) or {}).items():
            try:
                value = parse(amount)
            except ValueError:
                yield invalid_value(
                    f"{at}.{part}[{key}]",
                    amount,
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
                )
                continue
            if value < 0:
                yield invalid_value(f"{at}.{part}[{key}]", str(amount), _NOT_NEGATIVE)
            parsed[key] = value
    for key, value in values["requests"].items():
        limit = values["limits"].get(key)
        if limit is not None and value > limit:
            yield invalid_value(
                f"{at}.requests",
                str(resources["requests"][key]),
                f"must be less than or equal to {key} limit of {resources['limits'][key]}",
            )


def _port(value: Any) -> bool:
    return isinstance(value, int) and 0 < value < 65536


def _handler(handler: Document, at: str, word: str) -> Iterator[Cause]:
    said = [each for each in _HANDLERS if handler.get(each) is not None]
    if not said:
        yield required(at, f"must specify a {word} type")
    for each in said[1:]:
        yield forbidden(f"{at}.{each}", f"may not specify more than 1 {word} type")
    for each in said:
        if each != "exec":
            port = handler[each].get("port")
            if isinstance(port, int) and not _port(port):
                yield invalid_value(f"{at}.{each}.port", port, _PORTS)
            elif port in (None, ""):
                yield required(f"{at}.{each}.port")
        elif not handler[each].get("command"):
            yield required(f"{at}.exec.command")


def _probe(probe: Document, at: str, *, once: bool) -> Iterator[Cause]:
    yield from _handler(probe, at, "handler")
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if (value := probe.get(key, 0)) < 0:
            yield invalid_value(f"{at}.{key}", value, _NOT_NEGATIVE)
    if once and probe.get("successThreshold", 1) != 1:
        yield invalid_value(f"{at}.successThreshold", probe["successThreshold"], "must be 1")


def _container(container: Document, at: str, volumes: set[str], names: set[str]) -> Iterator[Cause]:
    name = container.get("name") or ""
    if not name:
        yield required(f"{at}.name")
    elif why := label(name):
        yield invalid_value(f"{at}.name", name, why)
    elif name in names:
        yield duplicate(f"{at}.name", name)
    names.add(name)
    if not container.get("image"):
        yield required(f"{at}.image")
    for key, choices in _CONTAINER_CHOICES:
        if container.get(key) not in choices:
            yield not_supported(f"{at}.{key}", container.get(key), choices)
    for index, port in enumerate(container.get("ports") or ()):
        if not port.get("containerPort"):
            yield required(f"{at}.ports[{index}].containerPort")
        elif not _port(port["containerPort"]):
            yield invalid_value(f"{at}.ports[{index}].containerPort", port["containerPort"], _PORTS)
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            yield not_supported(f"{at}.ports[{index}].protocol", port.get("protocol"), ("SCTP", "TCP", "UDP"))
    for index, variable in enumerate(container.get("env") or ()):
        if not variable.get("name"):
            yield required(f"{at}.env[{index}].name")
        if variable.get("value") and variable.get("valueFrom"):
            yield invalid_value(f"{at}.env[{index}].valueFrom", "", "may not be specified when `value` is not empty")
    paths: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        if not mount.get("name"):
            yield required(f"{at}.volumeMounts[{index}].name")
        elif mount["name"] not in volumes:
            yield unknown_value(f"{at}.volumeMounts[{index}].name", mount["name"])
        path = mount.get("mountPath")
        if not path:
            yield required(f"{at}.volumeMounts[{index}].mountPath")
        elif path in paths:
            yield invalid_value(f"{at}.volumeMounts[{index}].mountPath", path, "must be unique")
        else:
            paths.add(path)
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(key) is not None:
            yield from _probe(container[key], f"{at}.{key}", once=key != "readinessProbe")
    for key, hook in (container.get("lifecycle") or {}).items():
        if isinstance(hook, dict) and "sleep" not in hook:
            yield from _handler(hook, f"{at}.lifecycle.{key}", "handler")
    yield from _quantities(container.get("resources") or {}, f"{at}.resources")


def _volumes(spec: Document, at: str) -> Iterator[Cause]:
    seen: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        field = f"{at}.volumes[{index}]"
        name = volume.get("name") or ""
        if not name:
            yield required(f"{field}.name")
        elif why := label(name):
            yield invalid_value(f"{field}.name", name, why)
        elif name in seen:
            yield duplicate(f"{field}.name", name)
        seen.add(name)
        sources = [key for key in volume if key != "name"]
        for extra in sources[1:]:
            yield forbidden(f"{field}.{extra}", "may not specify more than 1 volume type")


def _tolerations(spec: Document, at: str) -> Iterator[Cause]:
    for index, each in enumerate(spec.get("tolerations") or ()):
        field = f"{at}.tolerations[{index}]"
        operator = each.get("operator") or "Equal"
        if operator not in ("Equal", "Exists"):
            yield not_supported(f"{field}.operator", operator, ("Equal", "Exists"))
        if operator == "Exists" and each.get("value"):
            yield invalid_value(f"{field}.operator", each["value"], "value must be empty when `operator` is 'Exists'")
        if not each.get("key") and operator != "Exists":
            yield invalid_value(
                f"{field}.operator",
                operator,
                'operator must be Exists when `key` is empty, which means "match all values and all keys"',
            )
        effect = each.get("effect") or ""
        if effect not in ("", "NoSchedule", "PreferNoSchedule", "NoExecute"):
            yield not_supported(f"{field}.effect", effect, ("NoSchedule", "PreferNoSchedule", "NoExecute"))
        if each.get("tolerationSeconds") is not None and effect != "NoExecute":
            yield invalid_value(f"{field}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set")


def validate_pod_spec(spec: Document, at: str = "spec") -> list[Cause]:
    """Causes in a completed spec."""
    found = list(_volumes(spec, at))
    if not spec.get("containers"):
        found.append(required(f"{at}.containers"))
    volumes = {str(each.get("name") or "") for each in spec.get("volumes") or ()}
    names: set[str] = set()
    for field, container in all_containers(spec):
        found += _container(container, f"{at}.{field}", volumes, names)
    found += [
        not_supported(f"{at}.{key}", spec.get(key), known) for key, known in _CHOICES if spec.get(key) not in known
    ]
    if (seconds := spec.get("activeDeadlineSeconds")) is not None and not 1 <= seconds < 2**31:
        found.append(
            invalid_value(f"{at}.activeDeadlineSeconds", seconds, "must be between 1 and 2147483647, inclusive")
        )
    if (seconds := spec.get("terminationGracePeriodSeconds")) is not None and seconds < 0:
        found.append(invalid_value(f"{at}.terminationGracePeriodSeconds", seconds, _NOT_NEGATIVE))
    for key, rule in (
        ("hostname", label),
        ("subdomain", label),
        ("nodeName", subdomain),
        ("serviceAccountName", subdomain),
    ):
        if spec.get(key) and (why := rule(spec[key])):
            found.append(invalid_value(f"{at}.{key}", spec[key], why))
    found += check_labels(spec.get("nodeSelector"), f"{at}.nodeSelector")
    return found + list(_tolerations(spec, at))
