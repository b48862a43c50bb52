"""Events of the group events.k8s.io as a view of the stored core Events, and their rules."""

from __future__ import annotations

from types import MappingProxyType

from core.api.kinds import EVENT
from core.apiserver.registry.conversion import Conversion
from core.apiserver.registry.pods import text
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import forbidden, invalid_value, required

__all__ = ["EVENTS_V1", "EventV1Strategy"]

# (name in events.k8s.io, name in core)
_NAMES = (
    ("regarding", "involvedObject"), ("note", "message"), ("reportingController", "reportingComponent"), ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"), ("deprecatedLastTimestamp", "lastTimestamp"), ("deprecatedCount", "count"),
)  # fmt: skip
_FROM_CORE = {core: new for new, core in _NAMES}
_TO_CORE = dict(_NAMES)

EVENTS_V1 = Conversion(
    EVENT,
    lambda document: {_FROM_CORE.get(key, key): value for key, value in document.items()},
    lambda document: {_TO_CORE.get(key, key): value for key, value in document.items()},
)


class EventV1Strategy(Strategy):
    """The stricter rules of the new group. Fields are read from the stored form."""

    soft = True
    fields = MappingProxyType({
        **{f"regarding.{key}": text("involvedObject", key) for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")},
        "reason": text("reason"),
        "type": text("type"),
        "reportingController": text("reportingComponent"),
    })  # fmt: skip

    def validate(self, document: Document) -> list[Cause]:
        found = [
            required(key)
            for key in ("eventTime", "reportingController", "reportingInstance", "action", "reason")
            if not document.get(key)
        ]
        if document.get("type") not in ("Normal", "Warning"):
            found.append(invalid_value("type", document.get("type") or "", "has invalid value: "))
        for key, bound in (("action", 128), ("reason", 128), ("note", 1024)):
            if len(document.get(key) or "") > bound:
                found.append(invalid_value(key, "", f"can have at most {bound} characters"))
        found += [
            forbidden(key, "needs to be unset")
            for key in ("deprecatedFirstTimestamp", "deprecatedLastTimestamp", "deprecatedCount")
            if document.get(key)
        ]
        namespace, own = (
            (document.get("regarding") or {}).get("namespace") or "default",
            document["metadata"]["namespace"],
        )
        if namespace != own:
            found.append(invalid_value("regarding.namespace", namespace, "does not match event.namespace"))
        return found
