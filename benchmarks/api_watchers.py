"""Watchers in a process of their own: many connections that read one watch, and say how late each event was.

`python -m benchmarks.api_watchers URL TOKEN PATH COUNT`: prints `ready` when all are connected; when its standard input ends, the latencies of
what was read, in milliseconds, one JSON list. An event's object says in `data.at` when it was written (nanoseconds of the machine's monotonic clock).

On a machine with two cores a reader that takes as long for an event as the server does is what is measured. So there is no event loop between the socket and
TLS, and an event's time is taken as soon as it has been deciphered; what it says is looked at when nothing else has come. Each connection's events must be
in the order in which they were written.
"""

from __future__ import annotations

import gc
import json
import re
import select
import socket
import ssl
import sys
import time
from urllib.parse import urlsplit

_AT = re.compile(rb'"at":"(\d+)"')
_LONGEST = 64
"""Bytes of a reading that may be the beginning of an `at` which ends in the next one."""
_READ = 1 << 14


class Stamps:
    """When the events of one connection were written."""

    def __init__(self) -> None:
        self._rest = b""
        self._newest = 0

    def of(self, data: bytes) -> list[int]:
        """Those in what was read next, in nanoseconds. Raises ValueError where an event came twice or out of order."""
        data = self._rest + data
        found, end = [], 0
        for each in _AT.finditer(data):
            at, end = int(each[1]), each.end()
            if at <= self._newest:
                raise ValueError("a watch has seen an event twice, or out of order")
            self._newest = at
            found.append(at)
        self._rest = data[max(end, len(data) - _LONGEST) :]
        return found


class Watcher:
    """One connection: TLS in memory over a socket that `read` doesn't wait for."""

    def __init__(self, context: ssl.SSLContext, address: tuple[str, int], request: bytes) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=address[0])
        self.stamps = Stamps()
        while True:
            try:
                self._tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send()
                self._receive()
        self._tls.write(request)
        self._send()

    def _send(self) -> None:
        if self._out.pending:
            self._socket.sendall(self._out.read())

    def _receive(self) -> None:
        data = self._socket.recv(_READ)
        if not data:
            sys.exit("the server closed a watch")
        self._in.write(data)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        """What has come, deciphered: b"" where it is no whole record yet."""
        self._receive()
        data = b""
        try:
            data = self._tls.read(_READ)
            while self._in.pending:
                data += self._tls.read(_READ)
        except ssl.SSLWantReadError:
            pass
        return data

    def close(self) -> None:
        self._socket.close()


def connect(url: str, token: str, path: str, count: int) -> list[Watcher]:
    where = urlsplit(url)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    request = f"GET {path} HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    return [Watcher(context, (where.hostname or "", where.port or 443), request) for _ in range(count)]


def watch(watchers: list[Watcher]) -> list[float]:
    """Read until standard input ends; how late each event was, in milliseconds."""
    by_descriptor = {each.fileno(): each for each in watchers}
    poll = select.epoll()
    for descriptor in (0, *by_descriptor):
        poll.register(descriptor, select.EPOLLIN)
    latencies: list[float] = []
    unread: list[tuple[Watcher, int, bytes]] = []
    began = set[Watcher]()
    while True:
        ready = poll.poll(0 if unread else None, len(by_descriptor) + 1)
        for descriptor, _ in ready:
            if not descriptor:
                poll.close()
                return latencies
            watcher = by_descriptor[descriptor]
            data = watcher.read()
            unread.append((watcher, time.monotonic_ns(), data))
        if not ready:
            for watcher, at, data in unread:
                if data and watcher not in began:
                    began.add(watcher)
                    if len(began) == len(watchers):
                        print("ready", flush=True)
                latencies += [(at - each) / 1e6 for each in watcher.stamps.of(data)]
            unread.clear()


if __name__ == "__main__":
    found = connect(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
    gc.freeze()
    gc.disable()
    print(json.dumps(watch(found)), flush=True)
    for each in found:
        each.close()
