"""MutatingAdmissionWebhook: webhooks may change what is created, before the rules that judge it have their say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.apiserver.admission import Attributes

__all__ = ["MutatingWebhooks"]


class MutatingWebhooks:
    verbs = ("create",)
    kinds: frozenset[str] | None = None

    async def admit(self, attributes: Attributes) -> None:
        document = attributes.document
        if attributes.asking is None or document is None:
            return
        changed = await attributes.asking.mutate(document, None)
        if changed is not None and changed is not document:
            document.clear()
            document.update(changed)
