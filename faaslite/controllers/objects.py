"""A Function as the controller reads it from the API."""

from __future__ import annotations

from typing import Any

import msgspec

from core.api.views import ObjectView

__all__ = ["FunctionObject"]


class FunctionObject(ObjectView):
    """A Function as stored: its spec may be invalid."""

    spec: Any = None
    status: dict[str, Any] = msgspec.field(default_factory=dict)
