"""Whether tolerations tolerate a taint, after k8s.io/api/core/v1 `Toleration.ToleratesTaint`."""

from __future__ import annotations

from collections.abc import Sequence

from core.api.views import Taint, Toleration

__all__ = ["tolerates", "toleration_for"]


def _matches(toleration: Toleration, taint: Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    return bool(toleration.key) and toleration.value == taint.value


def toleration_for(tolerations: Sequence[Toleration], taint: Taint) -> Toleration | None:
    """The first toleration that matches the taint."""
    return next((each for each in tolerations if _matches(each, taint)), None)


def tolerates(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    return toleration_for(tolerations, taint) is not None
