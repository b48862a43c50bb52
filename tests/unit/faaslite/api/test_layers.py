"""What a layer that is built in the cluster is known by."""

import pytest

from faaslite.api.function import FunctionInvalid, validate
from faaslite.api.layers import layer_key, wanted_layer
from faaslite.api.names import ANNOTATION_BUILD_ASKED, ANNOTATION_RESOLVED

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def test_the_key_is_of_runtime_and_requirements_and_not_of_code():
    key = layer_key("python", "# from requirements.txt\nsix\nnumpy>=2", DIGEST)
    assert len(key) == 32
    assert layer_key("python", "# from app.py\nsix\nnumpy>=2", OTHER) == key
    assert layer_key("python3.12", "six\nnumpy>=2") != key
    assert layer_key("python", "six\nnumpy>=3") != key
    assert layer_key("python", "# requires-python: >=3.12\nsix\nnumpy>=2") != key
    assert layer_key("python", "six\nnumpy>=2", resolved="2026") != key


def test_files_of_the_package_count_where_they_are_installed():
    assert layer_key("python", "six\n./own.whl", DIGEST) != layer_key("python", "six\n./own.whl", OTHER)
    assert layer_key("python", "-c ./limits.txt", DIGEST) != layer_key("python", "-c ./limits.txt", OTHER)


def test_files_that_npm_reads_are_known_by_their_digests():
    one = layer_key("node", "./package.json sha256:1", DIGEST)
    assert (
        layer_key("node", "./package.json sha256:1", OTHER)
        == one
        != layer_key("node", "./package.json sha256:2", DIGEST)
    )


def test_what_a_stored_function_wants():
    spec = {"package": {"digest": DIGEST, "requirements": "six"}}
    wanted = wanted_layer({"annotations": {ANNOTATION_BUILD_ASKED: "now", ANNOTATION_RESOLVED: "then"}}, spec)
    assert (wanted.key, wanted.asked) == (layer_key("python", "six", resolved="then"), "now")
    assert wanted_layer({}, spec).key == layer_key("python", "six")
    for nothing in (None, {}, {"package": "?"}, {"package": {"digest": DIGEST}}, {"package": {"requirements": " \n"}}):
        assert wanted_layer({}, nothing) is None


@pytest.mark.parametrize(
    ("package", "runtime", "message"),
    [
        ({"digest": DIGEST, "layer": OTHER, "requirements": "six"}, "python", "is not used where spec.package.layer"),
        (
            {"digest": DIGEST, "requirements": "x" * 70000},
            "python",
            "spec.package.requirements: is over 65536 characters",
        ),
    ],
)
def test_what_can_not_be(package, runtime, message):
    document = {"metadata": {"name": "f"}, "spec": {"runtime": runtime, "package": package}}
    with pytest.raises(FunctionInvalid, match=message):
        validate(document)
