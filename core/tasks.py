"""The end of a task that a component has started."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["ended"]


async def ended(task: asyncio.Future[Any] | None) -> None:
    """Cancel it, where there is one, and return when it has ended; what it raised is nobody's concern any more."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
