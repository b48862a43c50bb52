"""Evictions: a Pod goes where its PodDisruptionBudget lets it, and the budget is told first. The decision is pure."""

from __future__ import annotations

from collections.abc import Iterable

from core.api.kinds import POD_DISRUPTION_BUDGET
from core.api.selectors import from_label_selector
from core.apiserver.cache import Document
from core.clock import timestamp
from core.errors import ApiError, Forbidden, InternalError, TooManyRequests, cause

__all__ = ["budget_of", "needs_budget", "spent"]

_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_MAX_DISRUPTED = 2000
_RETRY_SECONDS = 10


def needs_budget(pod: Document) -> bool:
    """A Pod that has ended, hasn't begun or is going already disrupts nothing."""
    phase = (pod.get("status") or {}).get("phase")
    return phase not in ("Succeeded", "Failed", "Pending") and not pod["metadata"].get("deletionTimestamp")


def budget_of(pod: Document, budgets: Iterable[Document]) -> Document | None:
    """The budget that the Pod counts on. Raises `InternalError` where there are several."""
    found = [each for each in budgets if _selects(each, pod)]
    if len(found) > 1:
        raise InternalError(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    return found[0] if found else None


def _selects(budget: Document, pod: Document) -> bool:
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return False
    try:
        found = from_label_selector(selector)
    except (KeyError, ValueError, TypeError):
        return False
    return found is None or found.matches(pod["metadata"].get("labels") or {})


def _ready(pod: Document) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def spent(budget: Document, pod: Document, now: float) -> Document | None:
    """The budget's status after the eviction, None where it isn't touched. Raises `TooManyRequests`, `Forbidden`."""
    spec, status = budget.get("spec") or {}, budget.get("status") or {}
    healthy, wanted = status.get("currentHealthy") or 0, status.get("desiredHealthy") or 0
    if not _ready(pod):
        always = spec.get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
        if always or (healthy >= wanted > 0):
            return None
    name = budget["metadata"]["name"]
    if (status.get("observedGeneration") or 0) < (budget["metadata"].get("generation") or 0):
        raise _refusal(f"The disruption budget {name} is still being processed by the server.", retry=True)
    allowed = status.get("disruptionsAllowed") or 0
    if allowed < 0:
        raise Forbidden(f'{POD_DISRUPTION_BUDGET.resource} "{name}" is forbidden: pdb disruptions allowed is negative')
    disrupted = status.get("disruptedPods") or {}
    if len(disrupted) > _MAX_DISRUPTED:
        raise Forbidden(
            f'{POD_DISRUPTION_BUDGET.resource} "{name}" is forbidden: DisruptedPods map too big - too many evictions not confirmed by PDB controller'
        )
    if not allowed:
        raise _refusal(f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")
    return {
        **status,
        "disruptionsAllowed": allowed - 1,
        "disruptedPods": {**disrupted, pod["metadata"]["name"]: timestamp(now)},
    }


def _refusal(why: str, *, retry: bool = False) -> ApiError:
    details: Document = {"causes": [cause("DisruptionBudget", why)]}
    if retry:
        details["retryAfterSeconds"] = _RETRY_SECONDS
    return TooManyRequests(_REFUSED, details)
