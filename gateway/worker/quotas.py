"""What a namespace may ask of the gateway: calls per second, and calls in flight, over all workers of the machine.

They are annotations of the Namespace, so whoever may change it may change them. A namespace without one costs nothing: its routes don't know
of quotas.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from core.api import views
from faaslite.api.names import ANNOTATION_CONCURRENCY, ANNOTATION_RPS
from gateway.worker.ledger import Ledger

__all__ = ["Limits", "Quota", "Quotas", "Refusal", "limits_of"]

log = logging.getLogger(__name__)

_RATE = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?", re.ASCII)
_COUNT = re.compile(r"[0-9]{1,9}", re.ASCII)


class Limits(NamedTuple):
    """`rps` in calls per second, `concurrency` in calls; 0 for no limit."""

    rps: float = 0.0
    concurrency: int = 0


class Refusal(NamedTuple):
    """`limit` is its annotation's name without the domain; `retry_after` in whole seconds."""

    limit: str
    message: str
    retry_after: int


def limits_of(annotations: Mapping[str, str]) -> tuple[Limits, list[str]]:
    """What the annotations say, and what is wrong with those that are ignored."""
    wrong = []
    rps, concurrency = 0.0, 0
    text = annotations.get(ANNOTATION_RPS)
    if text is not None:
        rps = float(text) if _RATE.fullmatch(text) else 0.0
        if rps <= 0:
            wrong.append(f'{ANNOTATION_RPS}: "{text}" is not a number above 0')
    text = annotations.get(ANNOTATION_CONCURRENCY)
    if text is not None:
        concurrency = int(text) if _COUNT.fullmatch(text) else 0
        if concurrency <= 0:
            wrong.append(f'{ANNOTATION_CONCURRENCY}: "{text}" is not a whole number above 0')
    return Limits(rps, concurrency), wrong


class Quota:
    """One namespace's. The rate is kept by the generic cell rate algorithm (ITU-T I.371, the virtual scheduling form): a bucket of one second's
    calls, at least one, that fills at the rate; all of its state is one time."""

    def __init__(self, namespace: str, limits: Limits, ledger: Ledger) -> None:
        self.namespace = namespace
        self.limits = limits
        self.refused = {"rps": 0, "concurrency": 0}
        """How many calls this worker has refused, by limit."""
        self._ledger = ledger

    def take(self, now: float) -> Refusal | None:
        """Let one more call begin, or say why not. `now` is of the monotonic clock, which all processes of a machine share."""
        limits, ledger = self.limits, self._ledger
        with ledger.locked():
            if (
                limits.concurrency
                and ledger.total() >= limits.concurrency
                and ledger.forget_dead() >= limits.concurrency
            ):
                return self._refuse("concurrency", f"{limits.concurrency} calls in flight", 1)
            if limits.rps:
                interval = 1 / limits.rps
                slack = (max(limits.rps, 1.0) - 1.0) * interval
                due = ledger.next_call
                if not due <= now + slack + interval + 1e-9:
                    due = now  # of another boot, or of a lower rate
                if due - slack > now:
                    return self._refuse("rps", f"{limits.rps:g} calls per second", max(math.ceil(due - slack - now), 1))
                ledger.next_call = max(due, now) + interval
            ledger.in_flight += 1
        return None

    def leave(self) -> None:
        """A call that was let begin has ended."""
        self._ledger.in_flight -= 1

    def close(self) -> None:
        self._ledger.close()

    def _refuse(self, limit: str, what: str, retry_after: int) -> Refusal:
        self.refused[limit] += 1
        return Refusal(limit, f'the namespace "{self.namespace}" may have {what} (faaslite.dev/{limit})', retry_after)


class Quotas:
    """The quotas of all namespaces. `folder` is where the workers of this machine share what they know, None for a worker that is alone; `on_change` is
    called with a namespace that has a quota now, or no longer."""

    def __init__(self, folder: Path | None, on_change: Callable[[str], None]) -> None:
        self._folder = folder
        self._on_change = on_change
        self._known: dict[str, Quota] = {}

    def of(self, namespace: str) -> Quota | None:
        """None where nothing is limited."""
        found = self._known.get(namespace)
        return found if found is not None and found.limits != Limits() else None

    def __iter__(self) -> Iterator[Quota]:
        return iter(self._known.values())

    def on_namespace(self, old: views.Namespace | None, new: views.Namespace | None) -> None:
        """Handler of the informer on Namespaces. A change of its annotations holds for the next call."""
        before = old.metadata.annotations if old is not None else {}
        after = new.metadata.annotations if new is not None else {}
        namespace = (new or old).metadata.name  # type: ignore[union-attr]
        limits, wrong = limits_of(after)
        for each in wrong:
            if each not in limits_of(before)[1]:
                log.warning("a quota of the namespace %s is ignored: %s", namespace, each)
        known = self._known.get(namespace)
        if known is None:
            if limits == Limits():
                return
            known = self._open(namespace)
        if known.limits != limits:
            known.limits = limits  # calls in flight stay counted, whatever becomes of the limits
            self._on_change(namespace)

    def close(self) -> None:
        for each in self._known.values():
            each.close()
        self._known.clear()

    def _open(self, namespace: str) -> Quota:
        path = self._folder / namespace if self._folder is not None else None
        try:
            ledger = Ledger(path)
        except OSError as error:
            log.error("the quotas of the namespace %s are kept by each worker alone: %s", namespace, error)
            ledger = Ledger(None)
        found = self._known[namespace] = Quota(namespace, Limits(), ledger)
        return found
