"""What the watchers of the API's benchmark make of what they read."""

from __future__ import annotations

import pytest

from benchmarks.api_watchers import Stamps


def _event(at: int) -> bytes:
    return b'{"type":"MODIFIED","object":{"metadata":{"name":"fan"},"data":{"at":"%d"}}}\n' % at


def test_every_event_is_found_however_it_was_cut() -> None:
    data = b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(map(_event, range(1000, 1100)))
    for size in (1, 7, 63, 64, 65, 1000, len(data)):
        stamps = Stamps()
        found = [each for at in range(0, len(data), size) for each in stamps.of(data[at : at + size])]
        assert found == list(range(1000, 1100)), size


@pytest.mark.parametrize("second", [1000, 999])
def test_an_event_that_comes_twice_or_too_late_is_an_error(second: int) -> None:
    stamps = Stamps()
    stamps.of(_event(1000))
    with pytest.raises(ValueError, match="twice, or out of order"):
        stamps.of(_event(second))
