"""OpenTelemetry export, where the environment names a receiver (`OTEL_EXPORTER_OTLP_ENDPOINT`); nothing of it is imported elsewhere."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.jobs.otel import Telemetry

__all__ = ["Exporting", "exporter"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Exporting:
    """A component that ends the export: `stop` sends what waits."""

    def __init__(self, tracing: Telemetry) -> None:
        self.tracing = tracing

    async def start(self) -> None:
        """It exports from its making on."""

    async def stop(self) -> None:
        await asyncio.to_thread(self.tracing.shutdown)


def exporter() -> Exporting | None:
    """None where no endpoint is set."""
    if not any(os.environ.get(each) for each in _ENDPOINTS):
        return None
    from gateway.jobs.otel import Telemetry

    return Exporting(Telemetry())
