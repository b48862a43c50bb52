"""Quantities: every spelling of a value means it, and the canonical one comes back as itself."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api.quantity import canonical, milli, parse, whole

SUFFIXES = {
    "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000), "": Fraction(1), "k": Fraction(10**3),
    "M": Fraction(10**6), "G": Fraction(10**9), "T": Fraction(10**12), "P": Fraction(10**15), "E": Fraction(10**18),
    "Ki": Fraction(2**10), "Mi": Fraction(2**20), "Gi": Fraction(2**30), "Ti": Fraction(2**40), "e3": Fraction(1000),
    "E-2": Fraction(1, 100), "e0": Fraction(1),
}  # fmt: skip
numbers = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.decimals(-1000, 1000, places=3, allow_nan=False, allow_infinity=False).map(lambda each: format(each, "f")),
    st.integers(0, 999).map(lambda each: f".{each:03d}"),
    st.integers(0, 999).map(lambda each: f"+{each}."),
)
spelled = st.tuples(numbers, st.sampled_from(sorted(SUFFIXES)))


def exact(number: str, suffix: str) -> Fraction:
    """The value by another way of counting, rounded up to nanos."""
    nanos = Fraction(number.rstrip(".") if number.endswith(".") else number) * SUFFIXES[suffix] * 10**9
    return Fraction(-((-nanos.numerator) // nanos.denominator), 10**9)


@given(spelled)
def test_the_value_is_what_is_written(quantity: tuple[str, str]) -> None:
    value, text = exact(*quantity), "".join(quantity)
    assert Fraction(parse(text)) == value
    unrounded = Fraction(quantity[0].rstrip(".")) * SUFFIXES[quantity[1]]
    assert whole(text) == -((-unrounded.numerator) // unrounded.denominator)
    thousandths = unrounded * 1000
    assert milli(text) == -((-thousandths.numerator) // thousandths.denominator)


@given(spelled)
def test_the_canonical_form_means_the_same_and_stays(quantity: tuple[str, str]) -> None:
    text = canonical("".join(quantity))
    assert parse(text) == parse("".join(quantity))
    assert canonical(text) == text
    assert re.fullmatch(r"-?\d+([numkMGTPE]|[KMGTPE]i|e\d+|e-\d+)?", text)


@given(spelled, spelled)
def test_two_spellings_of_one_value_in_one_format_are_one(a: tuple[str, str], b: tuple[str, str]) -> None:
    plain = [each for each in (a, b) if each[1] in ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")]
    if len(plain) == 2:
        assert (canonical("".join(a)) == canonical("".join(b))) == (parse("".join(a)) == parse("".join(b)))


@pytest.mark.parametrize(
    "text, stored",
    [
        ("0.5", "500m"), ("1000m", "1"), ("1536Mi", "1536Mi"), ("1024Mi", "1Gi"), ("1.5Gi", "1536Mi"), ("0", "0"), ("0Mi", "0"),
        ("2e3", "2e3"), ("2000", "2k"), ("100", "100"), ("0.0000000001", "1n"), ("-0.5", "-500m"), ("123456", "123456"),
    ],
)  # fmt: skip
def test_examples(text: str, stored: str) -> None:
    assert canonical(text) == stored


@given(st.text(max_size=8))
def test_anything_else_is_refused(text: str) -> None:
    try:
        value = parse(text)
    except ValueError:
        return
    assert isinstance(value, Decimal)
    assert re.match(r"[+-]?[0-9.]", text)


@pytest.mark.parametrize("text", ["1e999999999", "1e-999999999", "9" * 130, "1e31"])
def test_what_no_quantity_can_be_is_refused(text: str) -> None:
    for read in (parse, whole, milli, canonical):
        with pytest.raises(ValueError):
            read(text)
