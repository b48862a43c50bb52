"""Only what listens at a Pod's own address is the Pod's."""

from __future__ import annotations

import socket
import sys

import pytest

from core.node.streams.listeners import listens, listens_here

TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0000000000000000 100 0 0 10 0
   1: 0100417F:1F4C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2 1 0000000000000000 100 0 0 10 0
   2: 0100417F:1F4D 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 3 1 0000000000000000 100 0 0 10 0
"""


@pytest.mark.skipif(sys.byteorder != "little", reason="the table is as this machine would write it")
def test_a_table() -> None:
    assert listens(TABLE, "127.65.0.1", 8012)
    assert not listens(TABLE, "127.65.0.1", 22)  # the machine's, at every address
    assert not listens(TABLE, "127.65.0.1", 8013)  # a connection, not a listener
    assert not listens(TABLE, "127.65.0.2", 8012)
    assert not listens("", "127.65.0.1", 8012)


def test_this_machine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listens_here("127.0.0.1", port)
        assert not listens_here("127.0.0.2", port)
    assert not listens_here("127.0.0.1", port)
