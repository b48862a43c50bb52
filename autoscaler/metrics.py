"""The autoscaler's numbers in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections.abc import Iterable

from autoscaler.windows import Seen

__all__ = ["Counts", "render"]

Row = tuple[str, int, int, Seen]
"""Key of a revision, wanted and ready replicas, its load."""


class Counts:
    """Since the start."""

    def __init__(self) -> None:
        self.decisions = self.panics = self.ups = self.downs = self.refused = 0

    def decided(self, panicking: bool) -> None:
        self.decisions += 1
        self.panics += panicking

    def scaled(self, up: bool) -> None:
        if up:
            self.ups += 1
        else:
            self.downs += 1


def render(counts: Counts, rows: Iterable[Row], gateways: int, garbage: int) -> bytes:
    rows = list(rows)
    lines: list[str] = []

    def family(name: str, kind: str, text: str, values: Iterable[tuple[str, float]]) -> None:
        lines.extend((f"# HELP {name} {text}", f"# TYPE {name} {kind}"))
        lines.extend(f"{name}{labels} {value:g}" for labels, value in values)

    family("faaslite_autoscaler_decisions_total", "counter", "Decisions.", [("", counts.decisions)])
    family("faaslite_autoscaler_panic_decisions_total", "counter", "Decisions made in panic.", [("", counts.panics)])
    scaled = [('{direction="up"}', counts.ups), ('{direction="down"}', counts.downs)]
    family("faaslite_autoscaler_scalings_total", "counter", "Writes of replicas.", scaled)
    family("faaslite_autoscaler_refusals_total", "counter", "Writes that the API refused.", [("", counts.refused)])
    family("faaslite_autoscaler_gateways", "gauge", "Gateway workers that report.", [("", gateways)])
    family(
        "faaslite_autoscaler_unreadable_lines_total",
        "counter",
        "Lines of gateways that could not be read.",
        [("", garbage)],
    )
    for name, text, values in (
        ("wanted_replicas", "Replicas that were decided on.", [(key, wanted) for key, wanted, _, _ in rows]),
        ("ready_replicas", "Replicas that are ready.", [(key, ready) for key, _, ready, _ in rows]),
        (
            "stable_load",
            "Load by the stable window, in the metric's unit.",
            [(key, seen.stable) for key, _, _, seen in rows],
        ),
        (
            "panic_load",
            "Load by the panic window, in the metric's unit.",
            [(key, seen.panic) for key, _, _, seen in rows],
        ),
        ("waiting_calls", "Calls that wait for an instance.", [(key, seen.waiting) for key, _, _, seen in rows]),
    ):
        family(f"faaslite_autoscaler_{name}", "gauge", text, [(_labels(key), float(value)) for key, value in values])
    return ("\n".join(lines) + "\n").encode()


def _labels(key: str) -> str:
    namespace, _, revision = key.partition("/")
    return f'{{namespace="{namespace}",revision="{revision}"}}'
