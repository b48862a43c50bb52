"""POST a JSON list of numbers, get what numpy makes of it."""

from dataclasses import dataclass

import numpy


@dataclass
class Summary:
    count: int
    mean: float
    deviation: float
    quartiles: list[float]


def handle(values: list[float]) -> Summary:
    """Summarise a list of numbers."""
    found = numpy.array(values)
    if not found.size:
        return {"error": "there is nothing to summarise"}, 422
    quartiles = numpy.percentile(found, [25, 50, 75])
    return Summary(found.size, float(found.mean()), float(found.std()), [float(each) for each in quartiles])
