"""Resource quantities (`500m`, `1536Mi`, `2e3`), after k8s.io/apimachinery/pkg/api/resource.

Grammar: a signed decimal number and a suffix: n u m "" k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent e3 / E3.
"""

from __future__ import annotations

import re
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation

__all__ = ["canonical", "milli", "parse", "whole"]

_PATTERN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_NANO = Decimal("1e-9")
_ONE = Decimal(1)
_LARGEST_POWER = 30
_EXACT = Context(prec=120)
"""Room for exabytes counted in nanos; the 28 digits of Python's default end at 10E."""


def _split(text: str | int | float) -> tuple[Decimal, str]:
    matched = _PATTERN.fullmatch(str(text))
    if matched is None:
        raise ValueError(f"quantities must match the regular expression '{_PATTERN.pattern}', got {text!r}")
    number, suffix = Decimal(matched[1]), matched[2] or ""
    if suffix in _BINARY:
        return _EXACT.multiply(number, Decimal(2 ** _BINARY[suffix])), "binary"
    if suffix in _DECIMAL:
        return number.scaleb(_DECIMAL[suffix], _EXACT), "decimal"
    power = int(suffix[1:])
    if abs(power) > _LARGEST_POWER:
        raise ValueError(f"{text!r} is beyond every quantity")
    return number.scaleb(power, _EXACT), "exponent"


def _rounded(value: Decimal, to: Decimal) -> Decimal:
    """Up, as Kubernetes rounds; ValueError for what no quantity can be."""
    try:
        return value.quantize(to, ROUND_CEILING, _EXACT)
    except InvalidOperation as error:
        raise ValueError(f"{value} is beyond every quantity") from error


def parse(text: str | int | float) -> Decimal:
    """The value in base units (cores, bytes, counts), rounded up to whole nanos; ValueError for bad grammar."""
    value = _rounded(_split(text)[0], _NANO)
    return value.normalize(_EXACT) if value else Decimal(0)


def whole(text: str | int | float) -> int:
    """The value in base units, rounded up to a whole number: bytes of memory, counts."""
    return int(_rounded(_split(text)[0], _ONE))


def milli(text: str | int | float) -> int:
    """The value in thousandths, rounded up: `500m` of CPU is 500."""
    return int(_rounded(_split(text)[0].scaleb(3, _EXACT), _ONE))


def canonical(text: str | int | float) -> str:
    """The form that the API stores: no fraction, the largest suffix that keeps the value whole (`0.5` -> `500m`)."""
    value, form = _split(text)
    value = _rounded(value, _NANO)
    if value == 0:
        return "0"
    if form == "binary" and value == value.to_integral_value() and abs(value) >= 1024:
        suffix = next(
            (
                name
                for name, power in reversed(_BINARY.items())
                if _EXACT.remainder(value, Decimal(2**power)) == 0 and abs(value) >= 2**power
            ),
            "",
        )
        return f"{int(value) // 2 ** _BINARY[suffix] if suffix else int(value)}{suffix}"
    for name, power in reversed(_DECIMAL.items()):
        scaled = value.scaleb(-power, _EXACT)
        if scaled == scaled.to_integral_value():
            if form == "exponent" and power:
                return f"{int(scaled)}e{power}"
            return f"{int(scaled)}{name}"
    raise AssertionError("a value of whole nanos has a suffix")
