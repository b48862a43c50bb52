"""The columns by which `kubectl get` knows each built-in kind. A column with priority 1 is shown by `-o wide`.

`COLUMNS` is the one table: (group, kind) -> columns. What isn't in it has Name and Age. Cells are pure functions of the
document and `now`. Pods have a file of their own, `podcolumns.py`.
"""

from __future__ import annotations

from core.api import quantity
from core.apiserver import podcolumns
from core.apiserver.cells import (
    AGE,
    NAME,
    NONE,
    Cell,
    Column,
    Document,
    ago,
    at,
    count,
    creation,
    dig,
    integer,
    joined,
    labels_text,
    selector_text,
    text,
    wide,
)  # fmt: skip

__all__ = ["COLUMNS"]


# Nodes


def _node_status(document: Document, now: float) -> str:
    ready = next((each for each in dig(document, "status.conditions") or () if each.get("type") == "Ready"), None)
    found = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{found},SchedulingDisabled" if dig(document, "spec.unschedulable") else found


_ROLE = "node-role.kubernetes.io/"


def _node_roles(document: Document, now: float) -> str:
    labels = dig(document, "metadata.labels") or {}
    found = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE) and key != _ROLE}
    if labels.get("kubernetes.io/role"):
        found.add(labels["kubernetes.io/role"])
    return ",".join(sorted(found)) or NONE


def _node_address(type_: str) -> Cell:
    def cell(document: Document, now: float) -> str:
        addresses = dig(document, "status.addresses") or ()
        return next((str(each.get("address")) for each in addresses if each.get("type") == type_), NONE)

    return cell


# Services


def _external_ip(document: Document, now: float) -> str:
    spec = document.get("spec") or {}
    given = [str(each) for each in spec.get("externalIPs") or ()]
    if spec.get("type") == "ExternalName":
        return str(spec.get("externalName") or NONE)
    if spec.get("type") == "LoadBalancer":
        ingress = dig(document, "status.loadBalancer.ingress") or ()
        found = [str(each.get("ip") or each.get("hostname") or "") for each in ingress] + given
        return ",".join(found) or "<pending>"
    return ",".join(given) or NONE


def _service_ports(document: Document, now: float) -> str:
    found = []
    for each in dig(document, "spec.ports") or ():
        node_port = f":{each['nodePort']}" if each.get("nodePort") else ""
        found.append(f"{each.get('port')}{node_port}/{each.get('protocol') or 'TCP'}")
    return ",".join(found) or NONE


def _some(found: list[str], bound: int) -> str:
    if not found:
        return NONE
    more = f" + {len(found) - bound} more..." if len(found) > bound else ""
    return ",".join(found[:bound]) + more


def _endpoints(document: Document, now: float) -> str:
    found = []
    for subset in document.get("subsets") or ():
        for address in subset.get("addresses") or ():
            ports = subset.get("ports") or ()
            found += [f"{address.get('ip')}:{port.get('port')}" for port in ports] or [str(address.get("ip"))]
    return _some(found, 3)


def _slice_ports(document: Document, now: float) -> str:
    return _some([str(each.get("port", "*")) for each in document.get("ports") or ()], 3).replace(NONE, "<unset>")


def _slice_endpoints(document: Document, now: float) -> str:
    found = [str(address) for each in document.get("endpoints") or () for address in each.get("addresses") or ()]
    return _some(found, 3).replace(NONE, "<unset>")


def _hosts(document: Document, now: float) -> str:
    return _some([str(each["host"]) for each in dig(document, "spec.rules") or () if each.get("host")], 3).replace(
        NONE, "*"
    )


# Workloads


def _containers(field: str, path: str = "spec.template.spec.containers") -> Cell:
    def cell(document: Document, now: float) -> str:
        return ",".join(str(each.get(field, "")) for each in dig(document, path) or ())

    return cell


def _workload(path: str = "spec.template.spec.containers", selector: str = "spec.selector") -> tuple[Column, ...]:
    shown = [wide("Containers", _containers("name", path)), wide("Images", _containers("image", path))]
    if selector:
        shown.append(wide("Selector", lambda document, now: selector_text(dig(document, selector))))
    return tuple(shown)


def _ready_of(ready: str, wanted: str) -> Cell:
    return lambda document, now: f"{dig(document, ready) or 0}/{dig(document, wanted) or 0}"


def _completions(document: Document, now: float) -> str:
    done = dig(document, "status.succeeded") or 0
    wanted, parallel = dig(document, "spec.completions"), dig(document, "spec.parallelism") or 0
    if wanted is not None:
        return f"{done}/{wanted}"
    return f"{done}/1 of {parallel}" if parallel > 1 else f"{done}/1"


def _job_status(document: Document, now: float) -> str:
    conditions = {each.get("type") for each in dig(document, "status.conditions") or () if each.get("status") == "True"}
    for condition, found in (("Complete", "Complete"), ("Failed", "Failed")):
        if condition in conditions:
            return found
    if dig(document, "metadata.deletionTimestamp"):
        return "Terminating"
    return next(
        (each for each in ("Suspended", "FailureTarget", "SuccessCriteriaMet") if each in conditions), "Running"
    )


def _job_duration(document: Document, now: float) -> str:
    start, end = dig(document, "status.startTime"), dig(document, "status.completionTime")
    return ago(start, now, until=end) if start else ""


# Events


def _event_seen(first: bool) -> Cell:
    def cell(document: Document, now: float) -> str:
        paths = ("firstTimestamp", "eventTime") if first else ("series.lastObservedTime", "lastTimestamp", "eventTime")
        return ago(next((found for path in paths if (found := dig(document, path))), None), now)

    return cell


def _event_object(document: Document, now: float) -> str:
    about = document.get("involvedObject") or document.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _event_source(document: Document, now: float) -> str:
    parts = (dig(document, "source.component") or document.get("reportingComponent"), dig(document, "source.host"))
    return ", ".join(str(each) for each in parts if each)


_EVENT = (
    Column("Last Seen", _event_seen(False)),
    text("Type", "type"),
    text("Reason", "reason"),
    Column("Object", _event_object),
    wide("Subobject", at("involvedObject.fieldPath", "")),
    wide("Source", _event_source),
    Column("Message", lambda document, now: str(document.get("message") or document.get("note") or "").strip()),
    wide("First Seen", _event_seen(True)),
    wide("Count", lambda document, now: dig(document, "series.count") or document.get("count") or 1),
    wide("Name", at("metadata.name", "")),
)


# Storage, policy, roles


_MODES = {"ReadWriteOnce": "RWO", "ReadOnlyMany": "ROX", "ReadWriteMany": "RWX", "ReadWriteOncePod": "RWOP"}


def _modes(path: str) -> Cell:
    return lambda document, now: ",".join(_MODES.get(each, each) for each in dict.fromkeys(dig(document, path) or ()))


def _claim(document: Document, now: float) -> str:
    claim = dig(document, "spec.claimRef")
    return f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else ""


def _phase(document: Document, now: float) -> str:
    return "Terminating" if dig(document, "metadata.deletionTimestamp") else str(dig(document, "status.phase") or "")


def _default_class(document: Document, now: float) -> str:
    marks = dig(document, "metadata.annotations") or {}
    mark = " (default)" if marks.get("storageclass.kubernetes.io/is-default-class") == "true" else ""
    return f"{dig(document, 'metadata.name')}{mark}"


def _quota(kind: str) -> Cell:
    def cell(document: Document, now: float) -> str:
        hard, used = (
            dig(document, "status.hard") or dig(document, "spec.hard") or {},
            dig(document, "status.used") or {},
        )
        names = sorted(each for each in hard if each.startswith("limits.") == (kind == "limits"))
        return ", ".join(f"{each}: {used.get(each, '0')}/{hard[each]}" for each in names)

    return cell


def _role(document: Document, now: float) -> str:
    return f"{dig(document, 'roleRef.kind') or ''}/{dig(document, 'roleRef.name') or ''}"


def _subjects(kind: str) -> Cell:
    def cell(document: Document, now: float) -> str:
        found = [each for each in document.get("subjects") or () if each.get("kind") == kind]
        space = "{namespace}/{name}" if kind == "ServiceAccount" else "{name}"
        return ", ".join(space.format(namespace=each.get("namespace", ""), name=each.get("name", "")) for each in found)

    return cell


_BINDING = (
    NAME, Column("Role", _role), AGE,
    wide("Users", _subjects("User")), wide("Groups", _subjects("Group")), wide("ServiceAccounts", _subjects("ServiceAccount")),
)  # fmt: skip
_CREATED_AT = (NAME, Column("Created At", creation, "date"))


def _hpa_target(document: Document, now: float) -> str:
    reference = dig(document, "spec.scaleTargetRef") or {}
    return f"{reference.get('kind', '')}/{reference.get('name', '')}"


def _hpa_metrics(document: Document, now: float) -> str:
    """Two at most, as kubernetes' `formatHPAMetrics` has them."""
    statuses = dig(document, "status.currentMetrics") or []
    found = []
    for index, each in enumerate(dig(document, "spec.metrics") or ()):
        field = str(each.get("type", ""))
        field = field[:1].lower() + field[1:]
        target = dig(each, f"{field}.target") or {}
        used = dig(statuses[index], f"{field}.current") or {} if index < len(statuses) else {}
        name = f"{dig(each, f'{field}.name')}: " if field in ("resource", "containerResource") else ""
        percent = target.get("averageUtilization")
        if percent is not None:
            now_at = used.get("averageUtilization")
            found.append(f"{name}{'<unknown>' if now_at is None else f'{now_at}%'}/{percent}%")
        elif "averageValue" in target:
            average = " (avg)" if field in ("object", "external") else ""
            found.append(f"{name}{used.get('averageValue', '<unknown>')}/{target['averageValue']}{average}")
        else:
            found.append(f"{name}{used.get('value', '<unknown>')}/{target.get('value', '<auto>')}")
    return ", ".join(found[:2]) + (f" + {len(found) - 2} more..." if len(found) > 2 else "") if found else NONE


def _total(resource: str) -> Cell:
    """What a Pod's containers, or a node, use of a resource, as one quantity."""

    def cell(document: Document, now: float) -> str:
        parts = document.get("containers", (document,))
        used = sum(quantity.parse((each.get("usage") or {}).get(resource, "0")) for each in parts)
        if resource == "cpu":
            return quantity.canonical(f"{int(used * 10**9)}n")
        return quantity.canonical(f"{int(used) // 1024}Ki")

    return cell


_USAGE = (
    NAME, Column("cpu", _total("cpu"), "string", "quantity"), Column("memory", _total("memory"), "string", "quantity"),
    Column("Window", at("window"), "string", "duration"),
)  # fmt: skip


def _healthy(document: Document) -> Document:
    conditions = document.get("conditions") or ()
    return next((each for each in conditions if each.get("type") == "Healthy"), {})


def _csr_condition(document: Document, now: float) -> str:
    types = [str(each.get("type")) for each in dig(document, "status.conditions") or ()]
    found = next((each for each in ("Denied", "Approved") if each in types), "Pending")
    if "Failed" in types:
        found += ",Failed"
    return f"{found},Issued" if dig(document, "status.certificate") else found


def _missing_level(document: Document, now: float) -> str:
    conditions = dig(document, "status.conditions") or ()
    return next((str(each.get("status")) for each in conditions if each.get("type") == "Dangling"), "?")


def _shares(document: Document, now: float) -> int:
    part = dig(document, "spec.limited") or dig(document, "spec.exempt") or {}
    return part.get("nominalConcurrencyShares") or 0


COLUMNS: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "Pod"): (NAME, *podcolumns.COLUMNS),
    ("", "Node"): (
        NAME, Column("Status", _node_status), Column("Roles", _node_roles), AGE, text("Version", "status.nodeInfo.kubeletVersion"),
        wide("Internal-IP", _node_address("InternalIP")), wide("External-IP", _node_address("ExternalIP")),
        wide("OS-Image", at("status.nodeInfo.osImage", "<unknown>")),
        wide("Kernel-Version", at("status.nodeInfo.kernelVersion", "<unknown>")),
        wide("Container-Runtime", at("status.nodeInfo.containerRuntimeVersion", "<unknown>")),
    ),
    ("", "Namespace"): (NAME, text("Status", "status.phase"), AGE),
    ("", "Service"): (
        NAME, text("Type", "spec.type"), text("Cluster-IP", "spec.clusterIP", NONE), Column("External-IP", _external_ip),
        Column("Port(s)", _service_ports), AGE, wide("Selector", lambda document, now: labels_text(dig(document, "spec.selector"))),
    ),
    ("", "Endpoints"): (NAME, Column("Endpoints", _endpoints), AGE),
    ("", "ComponentStatus"): (
        NAME, Column("Status", lambda document, now: "Healthy" if _healthy(document).get("status") == "True" else "Unhealthy"),
        Column("Message", lambda document, now: str(_healthy(document).get("message") or "")),
        Column("Error", lambda document, now: str(_healthy(document).get("error") or "")),
    ),
    ("", "ConfigMap"): (NAME, count("Data", "data", "binaryData"), AGE),
    ("", "Secret"): (NAME, text("Type", "type"), count("Data", "data"), AGE),
    ("", "ServiceAccount"): (NAME, count("Secrets", "secrets"), AGE),
    ("", "Event"): _EVENT,
    ("events.k8s.io", "Event"): _EVENT,
    ("", "ReplicationController"): (
        NAME, integer("Desired", "spec.replicas"), integer("Current", "status.replicas"), integer("Ready", "status.readyReplicas"),
        AGE, *_workload(),
    ),
    ("", "PersistentVolume"): (
        NAME, text("Capacity", "spec.capacity.storage"), Column("Access Modes", _modes("spec.accessModes")),
        text("Reclaim Policy", "spec.persistentVolumeReclaimPolicy"), Column("Status", _phase), Column("Claim", _claim),
        text("StorageClass", "spec.storageClassName"), text("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>"),
        text("Reason", "status.reason"), AGE, wide("VolumeMode", at("spec.volumeMode", "<unset>")),
    ),
    ("", "PersistentVolumeClaim"): (
        NAME, Column("Status", _phase), text("Volume", "spec.volumeName"), text("Capacity", "status.capacity.storage"),
        Column("Access Modes", _modes("status.accessModes")), text("StorageClass", "spec.storageClassName"),
        text("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>"), AGE,
        wide("VolumeMode", at("spec.volumeMode", "<unset>")),
    ),
    ("", "ResourceQuota"): (NAME, Column("Request", _quota("requests")), Column("Limit", _quota("limits")), AGE),
    ("", "LimitRange"): _CREATED_AT,
    ("", "PodTemplate"): (
        NAME, Column("Containers", _containers("name", "template.spec.containers")),
        Column("Images", _containers("image", "template.spec.containers")),
        Column("Pod Labels", lambda document, now: labels_text(dig(document, "template.metadata.labels"))),
    ),
    ("apps", "ReplicaSet"): (
        NAME, integer("Desired", "spec.replicas"), integer("Current", "status.replicas"), integer("Ready", "status.readyReplicas"),
        AGE, *_workload(),
    ),
    ("apps", "Deployment"): (
        NAME, Column("Ready", _ready_of("status.readyReplicas", "spec.replicas")), integer("Up-to-date", "status.updatedReplicas"),
        integer("Available", "status.availableReplicas"), AGE, *_workload(),
    ),
    ("apps", "StatefulSet"): (
        NAME, Column("Ready", _ready_of("status.readyReplicas", "spec.replicas")), AGE, *_workload(selector=""),
    ),
    ("apps", "DaemonSet"): (
        NAME, integer("Desired", "status.desiredNumberScheduled"), integer("Current", "status.currentNumberScheduled"),
        integer("Ready", "status.numberReady"), integer("Up-to-date", "status.updatedNumberScheduled"),
        integer("Available", "status.numberAvailable"),
        Column("Node Selector", lambda document, now: labels_text(dig(document, "spec.template.spec.nodeSelector"))), AGE, *_workload(),
    ),
    ("apps", "ControllerRevision"): (
        NAME, Column("Controller", lambda document, now: next(
            (f"{each.get('kind', '').lower()}.{each.get('apiVersion', '').partition('/')[0]}/{each.get('name')}"
             for each in dig(document, "metadata.ownerReferences") or () if each.get("controller")), NONE)),
        text("Revision", "revision"), AGE,
    ),
    ("batch", "Job"): (
        NAME, Column("Status", _job_status), Column("Completions", _completions), Column("Duration", _job_duration), AGE, *_workload(),
    ),
    ("batch", "CronJob"): (
        NAME, text("Schedule", "spec.schedule"), text("Timezone", "spec.timeZone", NONE),
        Column("Suspend", lambda document, now: "True" if dig(document, "spec.suspend") else "False"), count("Active", "status.active"),
        Column("Last Schedule", lambda document, now: ago(dig(document, "status.lastScheduleTime"), now, missing=NONE)), AGE,
        *_workload("spec.jobTemplate.spec.template.spec.containers", "spec.jobTemplate.spec.selector"),
    ),
    ("discovery.k8s.io", "EndpointSlice"): (
        NAME, text("AddressType", "addressType"), Column("Ports", _slice_ports), Column("Endpoints", _slice_endpoints), AGE,
    ),
    ("coordination.k8s.io", "Lease"): (NAME, text("Holder", "spec.holderIdentity"), AGE),
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _CREATED_AT,
    ("networking.k8s.io", "Ingress"): (
        NAME, text("Class", "spec.ingressClassName", NONE), Column("Hosts", _hosts),
        Column("Address", joined("status.loadBalancer.ingress", "ip", "hostname")),
        Column("Ports", lambda document, now: "80, 443" if dig(document, "spec.tls") else "80"), AGE,
    ),
    ("networking.k8s.io", "IngressClass"): (
        NAME, text("Controller", "spec.controller"),
        Column("Parameters", lambda document, now: ".".join(
            str(dig(document, f"spec.parameters.{part}")) for part in ("kind", "apiGroup", "name")
            if dig(document, f"spec.parameters.{part}")) or NONE), AGE,
    ),
    ("networking.k8s.io", "NetworkPolicy"): (
        NAME, Column("Pod-Selector", lambda document, now: selector_text(dig(document, "spec.podSelector"))), AGE,
    ),
    ("policy", "PodDisruptionBudget"): (
        NAME, text("Min Available", "spec.minAvailable", "N/A"), text("Max Unavailable", "spec.maxUnavailable", "N/A"),
        integer("Allowed Disruptions", "status.disruptionsAllowed"), AGE,
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): (
        NAME, Column("Reference", _hpa_target), Column("Targets", _hpa_metrics), text("MinPods", "spec.minReplicas", "<unset>"),
        integer("MaxPods", "spec.maxReplicas"), integer("Replicas", "status.currentReplicas"), AGE,
    ),
    ("rbac.authorization.k8s.io", "Role"): _CREATED_AT,
    ("rbac.authorization.k8s.io", "ClusterRole"): _CREATED_AT,
    ("rbac.authorization.k8s.io", "RoleBinding"): _BINDING,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): _BINDING,
    ("scheduling.k8s.io", "PriorityClass"): (
        NAME, integer("Value", "value"), Column("Global-Default", lambda document, now: bool(document.get("globalDefault")), "boolean"),
        AGE, wide("PreemptionPolicy", at("preemptionPolicy", "PreemptLowerPriority")),
    ),
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): (
        NAME, text("PriorityLevel", "spec.priorityLevelConfiguration.name"), integer("MatchingPrecedence", "spec.matchingPrecedence"),
        text("DistinguisherMethod", "spec.distinguisherMethod.type", NONE), AGE, Column("MissingPL", _missing_level),
    ),
    ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): (
        NAME, text("Type", "spec.type"), Column("NominalConcurrencyShares", _shares, "integer"),
        text("Queues", "spec.limited.limitResponse.queuing.queues", NONE),
        text("HandSize", "spec.limited.limitResponse.queuing.handSize", NONE),
        text("QueueLengthLimit", "spec.limited.limitResponse.queuing.queueLengthLimit", NONE), AGE,
    ),
    ("storage.k8s.io", "StorageClass"): (
        Column("Name", _default_class, "string", "name"), text("Provisioner", "provisioner"),
        text("ReclaimPolicy", "reclaimPolicy", "Delete"), text("VolumeBindingMode", "volumeBindingMode", "Immediate"),
        Column("AllowVolumeExpansion", lambda document, now: bool(document.get("allowVolumeExpansion")), "boolean"), AGE,
    ),
    ("node.k8s.io", "RuntimeClass"): (NAME, text("Handler", "handler"), AGE),
    ("certificates.k8s.io", "CertificateSigningRequest"): (
        NAME, AGE, text("SignerName", "spec.signerName"), text("Requestor", "spec.username"), Column("Condition", _csr_condition),
    ),
    ("metrics.k8s.io", "NodeMetrics"): _USAGE,
    ("metrics.k8s.io", "PodMetrics"): _USAGE,
    ("apiregistration.k8s.io", "APIService"): (
        NAME, Column("Service", lambda document, now: "/".join(
            str(each) for each in (dig(document, "spec.service.namespace"), dig(document, "spec.service.name")) if each) or "Local"),
        Column("Available", lambda document, now: next(
            (str(each.get("status")) for each in dig(document, "status.conditions") or () if each.get("type") == "Available"),
            "Unknown")), AGE,
    ),
}  # fmt: skip
