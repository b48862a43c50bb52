"""What can be set of a gateway worker. Times in seconds, sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and times of one worker; every worker of a gateway has the same."""

    domain: str = ""
    """Functions are also at `NAME.NAMESPACE.DOMAIN`; empty for not."""
    max_head: int = 32 * 1024
    """The longest request head (line and fields), else 431; replies of instances may have twice that."""
    max_body: int = 100 * 1024 * 1024
    """The longest request body for a function, else 413. The bodies for `jobs` are judged by `jobs`."""
    replay: int = 64 * 1024
    """How much of a request body is kept, so that a call can be sent to another instance."""
    pipeline: int = 64 * 1024
    """How much a client may send ahead of the reply that it waits for, before it isn't read any more."""

    header_timeout: float = 10.0
    """From the first byte of a head to its last."""
    idle_timeout: float = 75.0
    """How long a client's connection may be idle between requests."""
    linger_timeout: float = 2.0
    """How long a connection that is to be closed is still read, so that the client sees the reply and no reset."""
    tunnel_timeout: float = 3600.0
    """How long an upgraded connection may be silent."""
    timeout: float = 30.0
    """The deadline of calls to a revision that states none."""
    jobs_timeout: float = 300.0
    """The deadline of requests for `/system/` and `/async-function/`."""
    drain_grace: float = 30.0
    """How long `stop()` waits for calls in flight."""
    drain_idle: float = 0.5
    """How long `stop()` leaves an idle connection open: a request that is on its way there is answered, where a closed connection would reset it."""

    queue_length: int = 1000
    """How many calls may wait for one revision, else 503 `QueueFull`."""
    queue_timeout: float = 30.0
    """How long a call may wait for an instance, else 503 `ActivationTimeout`."""
    report_period: float = 1.0
    """How often the autoscaler is told the loads, and asked again while calls wait."""

    connect_timeout: float = 2.0
    """For a connection to an instance."""
    pool_idle: int = 128
    """Idle connections kept to one instance."""
    pool_idle_timeout: float = 30.0
    """How long an idle connection to an instance is kept; less than the instances' own, so that it is we who close."""
    reuse_unsafe: float = 1.0
    """How long a connection may have been idle for a call that must not be sent twice (POST, PATCH); shorter than servers' own limits."""
    attempts: int = 3
    """How often a call may be sent on after an instance refused or lost it."""
    aside: float = 0.5
    """How long an instance that refused a connection gets no calls, unless its Pod changes."""
    busy_pause: float = 0.25
    """How long an instance that said it is busy gets no calls, unless one of its calls ends, here or on another worker."""
    busy_retry: float = 0.02
    """The same where no other worker of this gateway has calls there."""

    trust_forwarded: bool = False
    """Whether `X-Forwarded-*` of clients are believed (another proxy stands in front) and kept."""
    tune_collector: bool = True
    """Freeze what start-up made and let the collector run rarely: for a process that is a worker and nothing else."""
