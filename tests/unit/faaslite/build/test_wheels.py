"""Which wheels fit an image's Python."""

from __future__ import annotations

import pytest

from faaslite.build.errors import BuildError
from faaslite.build.wheels import ImagePython, parse_probe, platforms


def test_an_image_says_what_it_is() -> None:
    assert parse_probe("3 12 x86_64 alone glibc 2.36\n", "i") == ImagePython((3, 12), "x86_64", (2, 36), False)
    assert parse_probe("3 12 aarch64 installs  \n", "i") == ImagePython((3, 12), "aarch64", None)


@pytest.mark.parametrize(("said", "why"), [("3 9 x86_64 glibc 2.31", "3.11 is the oldest"), ("sh: no", "did not say what it is"), ("", "did not say")])  # fmt: skip
def test_a_base_that_cant_be_one_is_refused(said: str, why: str) -> None:
    with pytest.raises(BuildError, match=why):
        parse_probe(said, "base")


def test_wheels_are_for_the_c_library_of_the_image() -> None:
    found = platforms(ImagePython((3, 12), "x86_64", (2, 28)))
    assert found[0] == "manylinux_2_28_x86_64" and found[-1] == "manylinux2014_x86_64"
    assert "manylinux_2_31_x86_64" not in found
    assert platforms(ImagePython((3, 12), "aarch64", None))[0].startswith("musllinux")
