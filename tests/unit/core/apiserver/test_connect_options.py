"""Options of connections: what webhooks are shown, and the query that they stand for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.apiserver.streams.connect import exec_query, ports_query
from core.apiserver.streams.options import connect_options, options_query
from core.errors import BadRequest

_FLAG = st.sampled_from(["true", "false", "1", "0", ""])
_PAIR = st.one_of(
    st.tuples(st.sampled_from(["stdin", "stdout", "stderr", "tty"]), _FLAG),
    st.tuples(st.just("command"), st.text(min_size=1, max_size=5)),
    st.tuples(st.just("container"), st.text(max_size=5)),
    st.tuples(st.just("ports"), st.sampled_from(["80", "80,8080", "65535"])),
)


def _or_refusal(read):
    try:
        return sorted(read())
    except BadRequest as error:
        return str(error)


@given(st.lists(_PAIR, max_size=8))
def test_options_ask_for_what_their_query_asked(query):
    for subresource in ("exec", "attach"):
        again = options_query(connect_options("Pod", subresource, query, ""))
        command = subresource == "exec"
        assert _or_refusal(lambda: exec_query(again, command=command)) == _or_refusal(
            lambda: exec_query(query, command=command)
        )
        assert dict(again).get("container", "") == dict(query).get("container", "")
    again = options_query(connect_options("Pod", "portforward", query, ""))
    assert ports_query(again) == ports_query(query)


@given(st.lists(st.tuples(st.sampled_from(["ports", "port", "stdin"]), st.text(max_size=8)), max_size=4))
def test_a_query_that_makes_no_sense_is_not_refused_here(query):
    connect_options("Pod", "portforward", query, "")
    connect_options("Pod", "exec", query, "")
