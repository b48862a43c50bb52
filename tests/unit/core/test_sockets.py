"""Unix sockets of their owner alone."""

import socket
import stat

import pytest

from core.sockets import bind_private


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_it_is_its_owners_alone_and_takes_the_place_of_a_dead_ones(short_path, kind):
    path = short_path / "s.sock"
    bind_private(path, kind).close()  # the file stays, as after a kill
    with bind_private(path, kind) as found:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert found.type == kind and found.getblocking() is False


def test_what_can_not_be_bound_leaves_no_socket_open(short_path):
    with pytest.raises(OSError):
        bind_private(short_path / "none" / "s.sock")
