"""Labels of requests, as kube-apiserver has them, and never more of them than there are kinds."""

from __future__ import annotations

import re

import pytest

from core.apiserver import dispatch
from core.apiserver.metrics import Metrics, labels

ROOT = "/api/v1/namespaces/default"


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", f"{ROOT}/pods", {}, ("", "pods", "namespace", "", "LIST", "v1")),
        ("GET", "/api/v1/pods", {"watch": "1"}, ("", "pods", "cluster", "", "WATCH", "v1")),
        ("GET", f"{ROOT}/pods/a", {}, ("", "pods", "resource", "", "GET", "v1")),
        ("POST", f"{ROOT}/pods", {}, ("", "pods", "resource", "", "POST", "v1")),
        ("PUT", f"{ROOT}/pods/a/status", {}, ("", "pods", "resource", "status", "PUT", "v1")),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/d/deployments/a",
            {},
            ("apps", "deployments", "resource", "", "PATCH", "v1"),
        ),
        ("DELETE", f"{ROOT}/pods", {}, ("", "pods", "namespace", "", "DELETECOLLECTION", "v1")),
        ("POST", f"{ROOT}/pods/a/exec", {}, ("", "pods", "resource", "exec", "CONNECT", "v1")),
        ("GET", "/healthz", {}, ("", "", "", "", "GET", "")),
    ],
)
def test_labels(method, path, query, expected):
    info = dispatch.parse(method, path, query)
    assert labels(info, True, False) == ("apiserver", "", *expected)


def test_names_that_nobody_serves_are_counted_together():
    found = {labels(dispatch.parse("GET", f"{ROOT}/made-up-{number}", {}), False, False) for number in range(100)}
    assert len(found) == 1
    assert len({labels(dispatch.parse(f"VERB{number}", "/x", {}), False, False) for number in range(100)}) == 1


def test_counts_and_times():
    metrics = Metrics(lambda: 3, lambda: 7)
    what = labels(dispatch.parse("GET", f"{ROOT}/pods", {}), True, True)
    metrics.answered(what, 200, 0.002)
    metrics.answered(what, 200, None)
    text = metrics.text()[0].decode()
    told = '{code="200",component="apiserver",dry_run="All",group="",resource="pods",scope="namespace",subresource="",verb="LIST",version="v1"}'
    assert f"apiserver_request_total{told} 2.0" in text
    assert "apiserver_longrunning_requests 3.0" in text and "apiserver_storage_revision 7.0" in text
    rest = told.replace('code="200",', "")
    assert f"apiserver_request_duration_seconds_count{rest} 1.0" in text
    assert f"apiserver_request_duration_seconds_sum{rest} 0.002" in text


@pytest.mark.parametrize(
    ("seconds", "first"), [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (10.0, "10.0"), (11.0, "+Inf")]
)
def test_a_bucket_counts_what_took_no_longer(seconds, first):
    metrics = Metrics(lambda: 0, lambda: 0)
    metrics.answered(labels(dispatch.parse("GET", f"{ROOT}/pods", {}), True, False), 200, seconds)
    found = re.findall(r'duration_seconds_bucket\{[^}]*le="([^"]+)"[^}]*\} (\d)', metrics.text()[0].decode())
    bounds = [bound for bound, _ in found]
    assert bounds[0] == "0.001" and bounds[-1] == "+Inf" and len(bounds) == 14
    assert [bound for bound, count in found if count == "1"] == bounds[bounds.index(first) :]
