"""OpenTelemetry export, where the environment names a receiver (`OTEL_EXPORTER_OTLP_ENDPOINT`); nothing of it is imported elsewhere."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from gateway.jobs.otel import Telemetry
    from gateway.otel import Spans

__all__ = ["Exporting", "exporter", "gateway_exporter"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class _Ends(Protocol):
    def shutdown(self) -> None: ...


T = TypeVar("T", bound=_Ends)


class Exporting(Generic[T]):
    """A component that ends the export: `stop` sends what waits."""

    def __init__(self, tracing: T) -> None:
        self.tracing = tracing

    async def start(self) -> None:
        """It exports from its making on."""

    async def stop(self) -> None:
        await asyncio.to_thread(self.tracing.shutdown)


def exporter() -> Exporting[Telemetry] | None:
    """That of jobs; None where no endpoint is set."""
    if not _wanted():
        return None
    from gateway.jobs.otel import Telemetry

    return Exporting(Telemetry())


def gateway_exporter() -> Exporting[Spans] | None:
    """That of a gateway worker; None where no endpoint is set."""
    if not _wanted():
        return None
    from gateway.otel import Spans

    return Exporting(Spans("faaslite-gateway"))


def _wanted() -> bool:
    return any(os.environ.get(each) for each in _ENDPOINTS)
