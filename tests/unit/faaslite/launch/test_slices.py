"""Clusters on one machine never share a network: what one holds, the next one leaves alone."""

import socket

import pytest

from faaslite.launch import slices
from faaslite.launch.errors import LaunchError


@pytest.fixture
def port():
    """A port that the kernel gives nobody else as long as the test runs, in no slice."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def close(claimed):
    for _, each in claimed:
        each.close()


def test_two_clusters_get_networks_of_their_own_and_their_own_again(port):
    one, two = slices.claim(2, [], port), slices.claim(1, [], port)
    numbers = [number for number, _ in (*one, *two)]
    assert len(set(numbers)) == 3 and slices.cidr(numbers[0]) == f"127.{numbers[0]}.0.0/16"
    close(one)
    again = slices.claim(1, [numbers[1]], port)
    assert [number for number, _ in again] == [numbers[1]]
    instead = slices.claim(1, [numbers[2]], port)
    assert instead[0][0] not in (numbers[1], numbers[2])
    for each in (two, again, instead):
        close(each)


def test_a_program_that_has_the_port_everywhere_is_named():
    with socket.socket() as everywhere:
        everywhere.bind(("0.0.0.0", 0))
        everywhere.listen()
        port = everywhere.getsockname()[1]
        with pytest.raises(LaunchError, match=f"port {port}, which another program has taken on every address"):
            slices.claim(1, [], port)


def test_more_nodes_than_networks(port):
    with pytest.raises(LaunchError, match="use fewer --nodes"):
        slices.claim(slices.LAST - slices.FIRST + 2, [], port)
    close(slices.claim(1, [], port))
