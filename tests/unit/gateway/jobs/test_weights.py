"""Weights as they stand in objects."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from core.api.views import Namespace
from faaslite.api.names import ANNOTATION_WEIGHT
from gateway.jobs.functions import FunctionView
from gateway.jobs.weights import Weighing, namespace_weight


def namespace(weight: str | None) -> Namespace:
    annotations = {} if weight is None else {ANNOTATION_WEIGHT: weight}
    return msgspec.convert({"metadata": {"name": "team", "annotations": annotations}}, Namespace)


def function(**rules: Any) -> FunctionView:
    return msgspec.convert({"metadata": {"name": "f", "namespace": "team"}, "spec": {"async": rules}}, FunctionView)


def test_they_follow_the_objects(caplog):
    weighing = Weighing()
    weights = weighing.weights
    weighing.on_namespace(None, namespace("2.5"))
    weighing.on_function(None, function(weight=4))
    assert weights == ({"team": 2.5}, {("team", "f"): 4.0})
    with caplog.at_level(logging.WARNING):
        weighing.on_namespace(namespace("2.5"), namespace("heavy"))
    assert weights.namespaces == {}
    assert (
        'namespace team weighs 1 in the queue: faaslite.dev/weight: "heavy" is not a number from 0.01 to 100'
        in caplog.text
    )
    weighing.on_namespace(namespace("heavy"), namespace("3"))
    weighing.on_function(function(weight=4), function())
    assert weights == ({"team": 3.0}, {})
    weighing.on_function(None, function(weight=1000))
    assert weights.functions == {("team", "f"): 100.0}
    weighing.on_namespace(namespace("3"), None)
    weighing.on_function(function(), None)
    assert weights == ({}, {})


@pytest.mark.parametrize("text", ["", "0", "-1", "101", "nan", "inf", "1,5"])
def test_what_is_no_weight(text):
    with pytest.raises(ValueError, match="is not a number from 0.01 to 100"):
        namespace_weight(text)
