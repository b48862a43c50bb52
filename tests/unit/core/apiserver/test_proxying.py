"""Where proxies lead, and what becomes of links."""

from __future__ import annotations

import pytest

from core.apiserver import proxying
from core.apiserver.proxying import Target
from core.errors import BadRequest, ServiceUnavailable


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("web", ("http", "web", "")),
        ("web:80", ("http", "web", "80")),
        ("web:http", ("http", "web", "http")),
        ("https:web:443", ("https", "web", "443")),
        ("https:web:", ("https", "web", "")),
        (":web:80", ("http", "web", "80")),
    ],
)
def test_names(text, parts):
    assert proxying.split_name(text) == parts


@pytest.mark.parametrize("text", ["", ":80", "ftp:web:21", "a:b:c:d", "http::80"])
def test_names_that_are_none(text):
    with pytest.raises(BadRequest, match="invalid request"):
        proxying.split_name(text)


def pod(*ports, address="10.0.0.1"):
    declared = [{"containerPort": each} for each in ports]
    return {"spec": {"containers": [{"name": "a"}, {"name": "b", "ports": declared}]}, "status": {"podIP": address}}


def test_pods():
    assert proxying.pod_target(pod(8080, 9090), "http", "").root == "http://10.0.0.1:8080"
    assert proxying.pod_target(pod(8080), "https", "1").root == "https://10.0.0.1:1"
    assert proxying.pod_target(pod(), "http", "").root == "http://10.0.0.1"
    assert proxying.pod_target(pod(80, address="fd00::1"), "http", "").root == "http://[fd00::1]:80"
    for bad in ("0", "65536", "x", "-1"):
        with pytest.raises(BadRequest, match="invalid port"):
            proxying.pod_target(pod(80), "http", bad)
    with pytest.raises(BadRequest, match="address not allowed"):
        proxying.pod_target({"spec": {"containers": []}, "status": {}}, "http", "")


def test_ports_of_services():
    service = {
        "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "web", "port": 80}, {"name": "more", "port": 81}]},
    }
    assert proxying.service_port(service, "81") == "more"
    assert proxying.service_port(service, "web") == "web"
    for bad in ("", "82", "nope"):
        with pytest.raises(ServiceUnavailable, match="no service port"):
            proxying.service_port(service, bad)
    assert proxying.service_port({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}, "") == ""


def test_only_ready_endpoints_with_that_port():
    one = {
        "ports": [{"name": "web", "port": 8080}, {"name": "other", "port": 1}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
            {"addresses": ["10.0.0.3"]},
        ],
    }
    assert proxying.ready_addresses(one, "web") == [("10.0.0.1", 8080), ("10.0.0.3", 8080)]
    assert proxying.ready_addresses(one, "nope") == []


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("169.254.169.254", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("host", True),
        ("10.0.0.1", False),
    ],
)
def test_addresses_of_this_machine(address, own):
    assert proxying.inward(address) is own


PREFIX = "/api/v1/namespaces/n/services/web/proxy"


@pytest.mark.parametrize(
    ("page", "found"),
    [
        (b'<a href="/x">t</a>', b'<a href="' + PREFIX.encode() + b'/x">t</a>'),
        (b"<IMG SRC='/x.png'>", b"<IMG SRC='" + PREFIX.encode() + b"/x.png'>"),
        (b'<a href="x">', b'<a href="x">'),
        (b'<a href="//cdn.example.com/x">', b'<a href="//cdn.example.com/x">'),
        (b'<a href="https://example.com/x">', b'<a href="https://example.com/x">'),
        (b'text href="/x"', b'text href="/x"'),
        (b'<a href="' + PREFIX.encode() + b'/x">', b'<a href="' + PREFIX.encode() + b'/x">'),
        (
            b'<form action = "/go" data-href="/kept">',
            b'<form action = "' + PREFIX.encode() + b'/go" data-href="/kept">',
        ),
    ],
)
def test_links(page, found):
    assert proxying.relinked(page, PREFIX) == found


def test_redirects():
    target = Target("http", "10.0.0.1", "80")
    assert proxying.moved("/there?a=b", target, PREFIX) == f"{PREFIX}/there?a=b"
    assert proxying.moved("http://10.0.0.1:80/there", target, PREFIX) == f"{PREFIX}/there"
    assert proxying.moved("http://10.0.0.1:80", target, PREFIX) == f"{PREFIX}/"
    assert proxying.moved("http://10.0.0.1:8080/", target, PREFIX) == "http://10.0.0.1:8080/"
    assert proxying.moved("there", target, PREFIX) == "there"
