"""Messages between workers and jobs, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.handover import (
    ACCEPT,
    ANSWER,
    DRAIN,
    LARGEST_FRAME,
    Accept,
    Answer,
    Frames,
    pack,
    unpack_accepts,
    unpack_answers,
)


def accept(number: int, body: bytes) -> Accept:
    return Accept(number, "id", "default", "f", "/a", "x=1", (("a", "b"),), body)


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 50))
def test_messages_come_out_as_they_went_in(bodies, step):
    sent = [accept(n, body) for n, body in enumerate(bodies)]
    data = b"".join(pack(ACCEPT, [each]) for each in sent) + pack(DRAIN, [])
    frames, found = Frames(), []
    for at in range(0, len(data), step):
        found += list(frames.feed(data[at : at + step]))
    assert found.pop()[0] == DRAIN
    assert [each for kind, message in found for each in unpack_accepts(message)] == sent
    assert {kind for kind, _ in found} <= {ACCEPT}


def test_answers_leave_out_nothing():
    answers = [Answer(1, 202, "a", True), Answer(2, 404, "", False, "FunctionNotFound", "none")]
    ((kind, message),) = Frames().feed(pack(ANSWER, answers))
    assert (kind, unpack_answers(message)) == (ANSWER, answers)


@pytest.mark.parametrize("length", [0, LARGEST_FRAME, 0xFFFFFFFF])
def test_what_is_no_message_is_refused(length):
    with pytest.raises(ValueError, match="a message of"):
        list(Frames().feed(length.to_bytes(4, "big") + b"x"))
