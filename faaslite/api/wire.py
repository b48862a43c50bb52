"""Messages between gateways and the autoscaler, one JSON document a line over a stream (a Unix socket, or TCP).

A gateway worker connects, sends `Hello`, then `Poke` whenever a call begins to wait for a revision without a ready
instance, and `Report` every second. The autoscaler answers with `Notice` where a revision can't be scaled (its maximum
is reached, a quota refuses it), so that waiting calls can fail with the reason. A connection that ends takes its worker's
numbers with it.
"""

from __future__ import annotations

import msgspec

__all__ = ["Floor", "Hello", "Load", "Message", "Notice", "Poke", "Report", "ScalePolicy", "decode", "encode"]


class Floor(msgspec.Struct, frozen=True, omit_defaults=True):
    """A minimum that holds at times: from each instant of the cron expression `cron` in `zone`, for `duration` seconds or until the next
    instant of the expression `until`."""

    cron: str
    min: int
    zone: str = "UTC"
    duration: float = 0.0
    until: str = ""


class ScalePolicy(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a revision scales: the annotation `faaslite.dev/scale` of its ReplicaSet. Times in seconds.

    `target` is the load per instance that is aimed at, in calls in flight or calls per second as `metric` says.
    `min` and `max` bound the replicas (`max` 0 is no bound); `idle` is how long a revision without calls keeps its last
    instance; `stable` is the averaging window (KPA's stable window; the panic window is a tenth of it).
    `initial` is how many replicas a new revision starts with. One that isn't `live` gets no calls as traffic goes, and isn't the newest.
    """

    target: float = 7.0
    metric: str = "concurrency"
    min: int = 0
    max: int = 20
    idle: float = 30.0
    stable: float = 60.0
    initial: int = 1
    live: bool = True
    limit: int = 0
    """The hard limit of calls in flight per instance, 0 for none: what a poke's waiting calls are divided by."""
    down_delay: float = 0.0
    """Instances are taken away only when nothing in this time asked for more (KPA's scale-down delay)."""
    up_rate: float = 1000.0
    down_rate: float = 2.0
    """By what factor of the ready instances one decision may grow and shrink."""
    floors: tuple[Floor, ...] = ()


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """First line of a connection. `gateway` is unique per gateway process."""

    gateway: str


class Poke(msgspec.Struct, tag="poke", frozen=True):
    """Calls wait for `revision` (`namespace/name` of its ReplicaSet): scale it from zero now."""

    revision: str
    queued: int = 1


class Load(msgspec.Struct, frozen=True, array_like=True):
    """What one worker saw of a revision since its last report.

    `concurrency` is the time-average of calls in flight and waiting, `requests` how many arrived, `queued` how many wait now.
    """

    revision: str
    concurrency: float
    requests: int
    queued: int


class Report(msgspec.Struct, tag="report", frozen=True):
    """Every second, with the revisions that had calls; a revision that is left out had none. `seconds` is the period it covers."""

    seconds: float
    loads: list[Load]


class Notice(msgspec.Struct, tag="notice", frozen=True):
    """To the gateway: why `revision` can't have (more) instances now."""

    revision: str
    reason: str
    message: str


Message = Hello | Poke | Report | Notice

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """One line, with its end."""
    return _encoder.encode(message) + b"\n"


def decode(line: bytes) -> Message:
    """Raises `msgspec.DecodeError` (`ValidationError` among them) for anything else."""
    return _decoder.decode(line)
