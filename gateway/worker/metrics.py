"""This worker's numbers in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.worker.concurrency import Revision
from gateway.worker.quotas import Quota
from gateway.worker.stats import BOUNDS, FunctionStats

__all__ = ["merge", "render"]

_LARGEST = ("faaslite_function_instances", "faaslite_namespace_limit")
"""Families that every worker knows the whole of: of these the largest counts, of all others the sum."""


def render(
    functions: Iterable[FunctionStats], revisions: Iterable[Revision], quotas: Iterable[Quota], connections: int
) -> str:
    functions, revisions = list(functions), list(revisions)
    lines: list[str] = []
    _family(lines, "faaslite_function_invocations_total", "counter", "Finished calls by class of the status code.")
    for each in functions:
        lines += [
            f'faaslite_function_invocations_total{{{_labels(each)},code="{hundreds}xx"}} {count}'
            for hundreds, count in enumerate(each.codes)
            if count
        ]
    _family(lines, "faaslite_function_duration_seconds", "histogram", "From a call's head to its reply's end.")
    for each in functions:
        _histogram(lines, "faaslite_function_duration_seconds", _labels(each), each.buckets, each.seconds)
    _family(lines, "faaslite_function_received_bytes_total", "counter", "Bytes of request bodies that clients sent.")
    lines += [f"faaslite_function_received_bytes_total{{{_labels(each)}}} {each.received}" for each in functions]
    _family(lines, "faaslite_function_sent_bytes_total", "counter", "Bytes of reply bodies that clients were sent.")
    lines += [f"faaslite_function_sent_bytes_total{{{_labels(each)}}} {each.sent}" for each in functions]
    _family(lines, "faaslite_function_cold_starts_total", "counter", "Calls that found no instance.")
    lines += [f"faaslite_function_cold_starts_total{{{_labels(each)}}} {each.cold_starts}" for each in functions]
    _family(lines, "faaslite_function_cold_start_seconds", "histogram", "Cold starts by phase: scheduling, starting.")
    for each in functions:
        for phase, durations in each.phases.items():
            labels = f'{_labels(each)},phase="{phase}"'
            _histogram(lines, "faaslite_function_cold_start_seconds", labels, durations.buckets, durations.seconds)
    _family(lines, "faaslite_function_in_flight", "gauge", "Calls that instances are at work on.")
    lines += [
        f"faaslite_function_in_flight{{{_revision(each)}}} {each.load.active - len(each.waiting)}" for each in revisions
    ]
    _family(lines, "faaslite_function_queue_depth", "gauge", "Calls that wait for an instance.")
    lines += [f"faaslite_function_queue_depth{{{_revision(each)}}} {len(each.waiting)}" for each in revisions]
    _family(lines, "faaslite_function_instances", "gauge", "Instances that get calls.")
    lines += [f"faaslite_function_instances{{{_revision(each)}}} {len(each.ready)}" for each in revisions]
    quotas = list(quotas)
    _family(
        lines, "faaslite_namespace_limit", "gauge", "What the namespace may have: calls per second, calls in flight."
    )
    lines += [
        f'faaslite_namespace_limit{{limit="{limit}",namespace="{each.namespace}"}} {value:g}'
        for each in quotas
        for limit, value in each.limits._asdict().items()
        if value
    ]
    _family(lines, "faaslite_namespace_refused_total", "counter", "Calls that a quota of their namespace refused.")
    lines += [
        f'faaslite_namespace_refused_total{{limit="{limit}",namespace="{each.namespace}"}} {count}'
        for each in quotas
        for limit, count in each.refused.items()
    ]
    _family(lines, "faaslite_gateway_connections", "gauge", "Open connections of clients.")
    lines.append(f"faaslite_gateway_connections {connections}")
    return "\n".join(lines) + "\n"


def merge(texts: Iterable[str]) -> str:
    """One text of several workers'. Families and samples keep the order in which they first come."""
    families: dict[str, list[str]] = {}
    samples: dict[str, dict[str, float]] = {}
    for text in texts:
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                _, what, family, _ = line.split(" ", 3)
                heads = families.setdefault(family, [])
                if len(heads) < 2 and not any(each.startswith(f"# {what} ") for each in heads):
                    heads.append(line)
                samples.setdefault(family, {})
                continue
            key, _, value = line.rpartition(" ")
            known = samples[family]
            if family in _LARGEST:
                known[key] = max(known.get(key, 0.0), float(value))
            else:
                known[key] = known.get(key, 0.0) + float(value)
    lines: list[str] = []
    for family, heads in families.items():
        lines += heads
        lines += [f"{key} {value:.15g}" for key, value in samples[family].items()]
    return "\n".join(lines) + "\n"


def _histogram(lines: list[str], name: str, labels: str, buckets: list[int], seconds: float) -> None:
    total = 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), buckets, strict=True):
        total += count
        lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
    lines.append(f"{name}_sum{{{labels}}} {seconds:.6f}")
    lines.append(f"{name}_count{{{labels}}} {total}")


def _family(lines: list[str], name: str, kind: str, text: str) -> None:
    lines.append(f"# HELP {name} {text}")
    lines.append(f"# TYPE {name} {kind}")


def _labels(each: FunctionStats) -> str:
    return f'function="{each.name}",namespace="{each.namespace}"'


def _revision(each: Revision) -> str:
    return f'function="{each.function}",namespace="{each.namespace}",revision="{each.key.partition("/")[2]}"'
