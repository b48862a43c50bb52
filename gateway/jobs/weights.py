"""The weights of namespaces and functions in the queue, kept up by the informers: the annotation `faaslite.dev/weight` of a Namespace
and `spec.async.weight` of a Function."""

from __future__ import annotations

import logging
import math
from typing import TypeVar

from core.api.views import Namespace
from faaslite.api.names import ANNOTATION_WEIGHT
from gateway.jobs.calls.fair import FunctionKey, Weights
from gateway.jobs.functions import FunctionView, queueing

__all__ = ["HEAVIEST", "LIGHTEST", "Weighing", "namespace_weight"]

log = logging.getLogger(__name__)

K = TypeVar("K")

LIGHTEST, HEAVIEST = 0.01, 100.0


def namespace_weight(text: str) -> float:
    """Raises ValueError, in one line, for what is no weight."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not LIGHTEST <= found <= HEAVIEST:
        raise ValueError(f'{ANNOTATION_WEIGHT}: "{text}" is not a number from {LIGHTEST:g} to {HEAVIEST:g}')
    return found


class Weighing:
    """`weights` is what the queue divides by, changed in place; what isn't in it weighs 1."""

    def __init__(self) -> None:
        self._namespaces: dict[str, float] = {}
        self._functions: dict[FunctionKey, float] = {}
        self.weights = Weights(self._namespaces, self._functions)

    def on_namespace(self, old: Namespace | None, new: Namespace | None) -> None:
        """An informer's handler. A weight that can't be read is 1, and told in the log."""
        if (known := new or old) is None:
            return
        name = known.name
        text = new.metadata.annotations.get(ANNOTATION_WEIGHT, "") if new is not None else ""
        weight = 1.0
        if text:
            try:
                weight = namespace_weight(text)
            except ValueError as error:
                log.warning("namespace %s weighs 1 in the queue: %s", name, error)
        _set(self._namespaces, name, weight)

    def on_function(self, old: FunctionView | None, new: FunctionView | None) -> None:
        """An informer's handler."""
        if new is not None:
            _set(self._functions, (new.namespace, new.name), queueing(new).weight)
        elif old is not None:
            self._functions.pop((old.namespace, old.name), None)


def _set(weights: dict[K, float], key: K, weight: float) -> None:
    if weight == 1.0:
        weights.pop(key, None)
    else:
        weights[key] = weight
