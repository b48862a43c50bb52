from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.worker.errors import HEADERS_TOO_LARGE, BadHead
from gateway.worker.fields import parse_request_fields
from gateway.worker.http1 import Chunked, RequestLines, check_incomplete, parse_reply, parse_request_line


def fields(*lines: bytes, trust: bool = False):
    return parse_request_fields(b"".join(line + b"\r\n" for line in lines), b"10.0.0.1", trust_forwarded=trust)


@pytest.mark.parametrize(
    ("line", "method", "name", "path", "start"),
    [
        (b"GET /function/a HTTP/1.1", b"GET", b"a", b"/function/a", b"GET / HTTP/1.1\r\n"),
        (b"PUT /function/a.b/c?d HTTP/1.0", b"PUT", b"a.b", b"/function/a.b/c?d", b"PUT /c?d HTTP/1.1\r\n"),
        (b"GET /function/a?d/e HTTP/1.1", b"GET", b"a", b"/function/a?d/e", b"GET /?d/e HTTP/1.1\r\n"),
        (b"GET /function/a//b HTTP/1.1", b"GET", b"a", b"/function/a//b", b"GET //b HTTP/1.1\r\n"),
        (b"GET /function/ HTTP/1.1", b"GET", None, b"/function/", b"GET /function/ HTTP/1.1\r\n"),
        (b"GET /function//a HTTP/1.1", b"GET", None, b"/function//a", b"GET /function//a HTTP/1.1\r\n"),
        (b"GET /function/?a HTTP/1.1", b"GET", None, b"/function/?a", b"GET /function/?a HTTP/1.1\r\n"),
        (b"WALK-ON /functions HTTP/1.1", b"WALK-ON", None, b"/functions", b"WALK-ON /functions HTTP/1.1\r\n"),
    ],
)
def test_request_lines(line, method, name, path, start):
    found = parse_request_line(line)
    assert (found.method, found.name, found.path, found.start) == (method, name, path, start)
    assert found.http10 == line.endswith(b"0")
    assert found.idempotent == (method in (b"GET", b"PUT"))
    assert found.authority == b""


def test_a_target_in_absolute_form_is_taken_apart():
    found = parse_request_line(b"GET http://h:80/function/a/b?c HTTP/1.1")
    assert (found.authority, found.name, found.start) == (b"h:80", b"a", b"GET /b?c HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "line",
    [
        b"", b"GET", b"GET /", b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET / http/1.1", b"GET  / HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ",
        b"G(T / HTTP/1.1", b"G" * 33 + b" / HTTP/1.1", b"GET /a\tb HTTP/1.1", b"GET /\x7f HTTP/1.1", b"GET /\xc3\xb6 HTTP/1.1", b"GET /\r HTTP/1.1",
        b"OPTIONS * HTTP/1.1", b"CONNECT h:1 HTTP/1.1", b"CONNECT /function/a HTTP/1.1", b"GET ftp://h/ HTTP/1.1", b"GET http:///a HTTP/1.1",
    ],
)  # fmt: skip
def test_request_lines_that_are_none(line):
    with pytest.raises(BadHead):
        parse_request_line(line)


def test_request_lines_are_remembered_within_bounds():
    lines = RequestLines()
    for number in range(2 * RequestLines.LIMIT):
        lines.read(b"GET /%d HTTP/1.1" % number)
    assert lines.known(b"GET /1 HTTP/1.1") is not None
    assert lines.known(b"GET /%d HTTP/1.1" % RequestLines.LIMIT) is None
    lines.forget()
    assert lines.known(b"GET /1 HTTP/1.1") is None
    long = b"GET /%s HTTP/1.1" % (b"x" * RequestLines.LONGEST)
    lines.read(long)
    assert lines.known(long) is None


def test_forwarded_fields_are_ours_unless_a_proxy_is_trusted():
    given_ = (
        b"Host: h",
        b"X-Forwarded-For: 1.1.1.1",
        b"X-Forwarded-For: 2.2.2.2",
        b"X-Forwarded-Host: o",
        b"X-Forwarded-Proto: https",
        b"Forwarded: for=9.9.9.9",
    )
    assert fields(*given_).forward.split(b"\r\n") == [
        b"Host: h", b"X-Forwarded-For: 10.0.0.1", b"X-Forwarded-Host: h", b"X-Forwarded-Proto: http",
        b"Forwarded: for=10.0.0.1;host=h;proto=http", b"",
    ]  # fmt: skip
    assert fields(*given_, trust=True).forward.split(b"\r\n") == [
        b"Host: h", b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.1", b"X-Forwarded-Host: o", b"X-Forwarded-Proto: https",
        b"Forwarded: for=9.9.9.9, for=10.0.0.1;host=o;proto=https", b"",
    ]  # fmt: skip


def test_hop_by_hop_fields_and_nominated_ones_go_but_not_framing():
    found = fields(
        b"Host: h",
        b"Connection: close, X-A, Content-Length, Host",
        b"X-A: 1",
        b"TE: trailers",
        b"Content-Length: 3",
        b"Proxy: x",
    )
    assert found.close and found.length == 3
    assert found.forward.startswith(b"Host: h\r\nContent-Length: 3\r\nX-Forwarded-For")


def test_the_gateways_own_fields_are_read_and_taken_out():
    found = fields(b"Host: h", b"X-Call-Id: a-1", b"X-Faaslite-Deadline: 1732390000.250")
    assert (found.call_id, found.deadline) == (b"a-1", 1732390000.25)
    assert b"Call-Id" not in found.forward and b"Deadline" not in found.forward


@pytest.mark.parametrize("value", [b"a b", b"", b"x" * 65, b"a/b", b'"'])
def test_a_call_id_that_would_not_be_safe_in_a_log_is_not_taken(value):
    assert fields(b"Host: h", b"X-Call-Id: " + value).call_id == b""


@pytest.mark.parametrize("value", [b"soon", b"nan", b"inf", b"-1", b"1e99"])
def test_a_deadline_that_is_none(value):
    assert fields(b"Host: h", b"X-Faaslite-Deadline: " + value).deadline == 0.0


def test_upgrade_needs_both_fields_and_is_never_h2c():
    assert not fields(b"Host: h", b"Upgrade: websocket").upgrade
    assert not fields(b"Host: h", b"Upgrade: h2c", b"Connection: upgrade").upgrade
    found = fields(b"Host: h", b"Upgrade: websocket", b"Connection: keep-alive, Upgrade")
    assert found.upgrade and b"Connection: upgrade\r\nUpgrade: websocket\r\n" in found.forward


def test_replies():
    found = parse_reply(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\nX-Call-Id: forged\r\nServer: s\r\n"
    )
    assert found.head == b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: s\r\n"
    assert (found.status, found.length, found.keep, found.simple) == (200, 5, True, True)
    assert parse_reply(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n").head.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
        b"HTTP/1.1 204 No Content\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 503 Busy\r\nX-Faaslite-Busy: 1\r\nContent-Length: 0\r\n",
        b"HTTP/1.1 200 OK\r\n",
    ],
)
def test_replies_that_need_a_second_look(head):
    assert not parse_reply(head).simple


def test_busy_is_only_busy_with_a_503():
    assert parse_reply(b"HTTP/1.1 503 x\r\nX-Faaslite-Busy: 1\r\n").busy
    assert not parse_reply(b"HTTP/1.1 200 x\r\nX-Faaslite-Busy: 1\r\n").busy


@pytest.mark.parametrize(
    ("data", "fine"),
    [
        (b"", True),
        (b"GET / HT", True),
        (b"GET / HTTP/1.1\r\nHost: a\r", True),
        (b"GET / HTTP/1.1\n", False),
        (b"\x16\x03\x01", False),
        (b"x" * 101, False),
    ],
)
def test_incomplete_heads(data, fine):
    if fine:
        check_incomplete(data, 100)
    else:
        with pytest.raises(BadHead):
            check_incomplete(data, 100)


def test_an_incomplete_head_that_is_too_long_says_so():
    with pytest.raises(BadHead) as caught:
        check_incomplete(b"x" * 101, 100)
    assert caught.value.failure is HEADERS_TOO_LARGE


@given(
    parts=st.lists(st.binary(min_size=1, max_size=300), max_size=8),
    trailers=st.lists(st.sampled_from([b"A: b", b"Long-Name:", b"x:\xff"]), max_size=3),
    after=st.binary(max_size=20),
    cuts=st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=20),
)
def test_chunks_end_where_they_end_however_they_arrive(parts, trailers, after, cuts):
    whole = b"".join(b"%x;q=1\r\n%s\r\n" % (len(part), part) for part in parts)
    whole += b"0\r\n" + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"
    data = whole + after
    chunked, content, at, turn = Chunked(), [], 0, 0
    while True:
        size = cuts[turn % len(cuts)]
        turn += 1
        end = chunked.feed(data[at : at + size], 0, content)
        if end >= 0:
            assert at + end == len(whole)
            break
        at += size
        assert at <= len(data)
    assert b"".join(content) == b"".join(parts)
    assert chunked.payload == sum(map(len, parts))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parsers_but_by_bad_head(data):
    for parse in (
        lambda: parse_request_fields(data, b"peer"),
        lambda: parse_reply(data),
        lambda: Chunked().feed(data),
        lambda: check_incomplete(data, 100),
    ):
        try:
            parse()
        except BadHead as error:
            assert error.message


def test_a_trace_goes_on_where_it_is_well_formed():
    good = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert fields(b"Host: h", good).traced
    assert good in fields(b"Host: h", good).forward
    for bad in (good[:-1], good.replace(b"00-", b"ff-", 1), b"traceparent: 00-" + b"0" * 32 + b"-00f067aa0ba902b7-01"):
        assert not fields(b"Host: h", bad).traced
        assert b"traceparent" not in fields(b"Host: h", bad).forward
    assert not fields(b"Host: h", good, good).traced


def test_credentials_of_the_platform_are_not_passed_on():
    found = fields(b"Host: h", b"X-Faaslite-Key: fk_1", b"X-Faaslite-Token: Bearer t", b"Authorization: Bearer f")
    assert (found.key, found.token, found.authorization) == (b"fk_1", b"Bearer t", b"Bearer f")
    assert b"fk_1" not in found.forward
    assert b"Bearer t" not in found.forward


@pytest.mark.parametrize("host", [b"", b'h"', b"h, i", b"a b", b"user@h", b"h/x", b"h\\x"])
def test_hosts_that_others_would_read_otherwise_are_refused(host):
    with pytest.raises(BadHead):
        fields(b"Host: " + host)


def test_spaces_around_a_length_do_not_reach_an_instance():
    for line in (b"Content-Length:5", b"content-length:5 ", b"Content-Length: \t5", b"Content-Length: 5\t"):
        found = fields(b"Host: h", line)
        assert found.length == 5
        assert b"\r\nContent-Length: 5\r\n" in found.forward
        assert found.forward.lower().count(b"content-length") == 1
    assert b"content-length: 5\r\n" in fields(b"Host: h", b"content-length: 5").forward


def test_underscores_do_not_make_fields_that_are_ours():
    found = fields(
        b"Host: h",
        b"X_Forwarded_For: 1.1.1.1",
        b"X_Call_Id: a",
        b"Content_Length: 9",
        b"X_Faaslite-Key: k",
        b"My_Own: b",
    )
    assert found.forward.startswith(b"Host: h\r\nMy_Own: b\r\nX-Forwarded-For: 10.0.0.1\r\n")
    assert b"_" not in found.forward.replace(b"My_Own", b"")
    assert (found.call_id, found.length, found.key) == (b"", 0, b"")


def test_plain_is_what_asks_for_nothing():
    assert fields(b"Host: h", b"Accept: */*", b"Cookie: a=b").plain
    for line in (b"Content-Length: 0", b"Connection: keep-alive", b"X-Call-Id: a", b"Host: i", b"Origin: http://h"):
        try:
            assert not fields(b"Host: h", line).plain
        except BadHead:
            assert line == b"Host: i"
    assert not fields(b"Accept: */*").plain


def test_a_reply_whose_head_needs_no_change_goes_on_as_it_is():
    head = b"HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 5\r\nSet-Cookie: a\r\n"
    assert parse_reply(head).head == head
    assert parse_reply(b"HTTP/1.1 200 OK\r\nConnection: X-A\r\nX-A: b\r\nContent-Length: 5\r\n").head == (
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
    )
