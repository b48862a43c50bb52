"""Node selectors: which nodes a Pod's affinity, or a volume's, is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.api.selectors import Requirement, Selector

__all__ = ["NodeTerm", "node_matches"]

_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!exists", "Gt": ">", "Lt": "<"}


class NodeTerm:
    """One NodeSelectorTerm: expressions over labels and over fields (`metadata.name` is the only one there is).

    KeyError or TypeError where it can't be read.
    """

    __slots__ = ("_fields", "_labels")

    def __init__(self, term: Mapping[str, Any]) -> None:
        self._labels = _selector(term.get("matchExpressions") or ())
        self._fields = _selector(term.get("matchFields") or ())

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """A term without any expression matches no node."""
        if not self._labels and not self._fields:
            return False
        return self._labels.matches(labels) and (not self._fields or self._fields.matches({"metadata.name": name}))


def node_matches(selector: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Whether one of the `nodeSelectorTerms` matches; KeyError or TypeError where they can't be read."""
    return any(NodeTerm(each).matches(name, labels) for each in selector.get("nodeSelectorTerms") or ())


def _selector(expressions: Sequence[Mapping[str, Any]]) -> Selector:
    return Selector(
        tuple(
            Requirement(
                each["key"], _OPERATORS[each["operator"]], frozenset(str(value) for value in each.get("values") or ())
            )
            for each in expressions
        )
    )
