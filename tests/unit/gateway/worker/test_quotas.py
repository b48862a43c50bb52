from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.api.views import Metadata, Namespace
from gateway.worker.ledger import Ledger
from gateway.worker.quotas import Limits, Quota, Quotas, limits_of


def quota(rps: float = 0, concurrency: int = 0) -> Quota:
    return Quota("a", Limits(rps, concurrency), Ledger(None))


@pytest.mark.parametrize(
    ("annotations", "limits", "wrong"),
    [
        ({}, Limits(), 0),
        ({"faaslite.dev/rps": "200", "faaslite.dev/concurrency": "50"}, Limits(200, 50), 0),
        ({"faaslite.dev/rps": "0.5"}, Limits(0.5, 0), 0),
        ({"faaslite.dev/rps": "many", "faaslite.dev/concurrency": "50"}, Limits(0, 50), 1),
        ({"faaslite.dev/rps": "0", "faaslite.dev/concurrency": "0"}, Limits(), 2),
        ({"faaslite.dev/rps": "-1", "faaslite.dev/concurrency": "1.5"}, Limits(), 2),
        ({"faaslite.dev/rps": "nan", "faaslite.dev/concurrency": ""}, Limits(), 2),
        ({"faaslite.dev/rps": "1e9", "faaslite.dev/concurrency": "\u0661"}, Limits(), 2),
    ],
)
def test_what_annotations_say(annotations, limits, wrong):
    found, errors = limits_of(annotations)
    assert (found, len(errors)) == (limits, wrong)


def test_a_second_s_calls_at_once_and_then_the_rate():
    found = quota(rps=10)
    assert [found.take(100.0) is None for _ in range(12)] == [True] * 10 + [False] * 2
    assert found.take(100.09) is not None
    assert found.take(100.1001) is None
    assert found.take(100.11) is not None
    assert [found.take(200.0) is None for _ in range(12)] == [True] * 10 + [False] * 2, "a pause saves up no more"
    assert found.refused == {"rps": 6, "concurrency": 0}


def test_less_than_one_call_a_second():
    found = quota(rps=0.25)
    assert found.take(100.0) is None
    refusal = found.take(100.5)
    assert refusal is not None
    assert (refusal.limit, refusal.retry_after) == ("rps", 4)
    assert "0.25 calls per second" in refusal.message
    assert '"a"' in refusal.message
    assert found.take(104.0) is None


@given(rps=st.floats(0.1, 50), gaps=st.lists(st.floats(0, 0.5), min_size=1, max_size=80))
def test_no_span_has_more_calls_than_a_bucket_and_the_rate_allow(rps, gaps):
    found, now, let = quota(rps=rps), 1000.0, []
    for gap in gaps:
        now += gap
        if found.take(now) is None:
            let.append(now)
    for first, begin in enumerate(let):
        for last in range(first, len(let)):
            assert last - first + 1 <= max(rps, 1) + (let[last] - begin) * rps + 1e-6


@given(rps=st.floats(0.1, 50), waits=st.lists(st.floats(0, 3), min_size=1, max_size=30))
def test_who_waits_as_long_as_he_was_told_is_let_in(rps, waits):
    found, now = quota(rps=rps), 1000.0
    for wait in waits:
        now += wait
        refusal = found.take(now)
        if refusal is not None:
            now += refusal.retry_after
            assert found.take(now) is None


def test_a_time_of_another_boot_or_of_a_lower_rate_is_no_debt():
    found = quota(rps=0.001)
    assert found.take(1e6) is None
    found.limits = Limits(100, 0)
    assert found.take(1e6) is None
    assert found.take(5.0) is None


def test_calls_in_flight():
    found = quota(concurrency=2)
    assert found.take(1.0) is None and found.take(1.0) is None
    refusal = found.take(1.0)
    assert refusal is not None
    assert (refusal.limit, refusal.retry_after) == ("concurrency", 1)
    found.leave()
    assert found.take(1.0) is None
    found.limits = Limits(100, 0)
    assert found.take(1.0) is None
    found.limits = Limits(100, 3)
    assert found.take(1.0) is not None, "what began without a limit counts too"


def test_a_call_that_is_refused_takes_nothing():
    found = quota(rps=1, concurrency=1)
    assert found.take(10.0) is None
    for _ in range(5):
        assert found.take(11.5).limit == "concurrency"
    found.leave()
    assert found.take(11.5) is None


def test_two_ledgers_of_one_file_are_one(tmp_path):
    one, two = (Quota("a", Limits(10, 3), Ledger(tmp_path / "q" / "a")) for _ in range(2))
    assert [each.take(50.0) is None for each in (one, two, one, two)] == [True, True, True, False]
    two.leave()
    assert one.take(50.0) is None
    one.close()
    assert [two.take(50.0) is None for _ in range(4)] == [True, True, True, False], "three of one's calls are forgotten"
    two.close()


def test_what_a_dead_process_had_counts_for_nothing(tmp_path):
    path = tmp_path / "a"
    script = """
        import os, sys
        from pathlib import Path
        from gateway.worker.ledger import Ledger
        from gateway.worker.quotas import Limits, Quota
        quota = Quota("a", Limits(0, 2), Ledger(Path(sys.argv[1])))
        assert quota.take(1.0) is None and quota.take(1.0) is None and quota.take(1.0) is not None
        print("taken", flush=True)
        sys.stdin.read()
        os._exit(1)
    """
    own = Quota("a", Limits(0, 2), Ledger(path))
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdin is not None
        assert other.stdout.readline() == b"taken\n"
        assert own.take(1.0) is not None
        other.stdin.close()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert own.take(1.0) is None, "it need not have been reaped"
    assert own.take(1.0) is None
    own.close()


def test_a_file_of_nonsense_harms_nobody(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xff" * 2000)
    found = Quota("a", Limits(1, 2), Ledger(path))
    assert found.take(50.0) is None
    assert found.take(50.0).limit == "rps"
    assert found.take(51.0) is None
    assert found.take(52.0).limit == "concurrency"
    found.leave()
    found.close()


def namespace(**annotations: str) -> Namespace:
    return Namespace(metadata=Metadata(name="a", annotations={f"faaslite.dev/{k}": v for k, v in annotations.items()}))


def test_quotas_come_and_go(caplog):
    changed: list[str] = []
    quotas = Quotas(None, changed.append)
    quotas.on_namespace(None, namespace())
    assert quotas.of("a") is None and changed == []
    quotas.on_namespace(namespace(), namespace(rps="5"))
    found = quotas.of("a")
    assert found is not None and found.limits == Limits(5, 0) and changed == ["a"]
    quotas.on_namespace(namespace(rps="5"), namespace(rps="5"))
    assert changed == ["a"]
    with caplog.at_level(logging.WARNING):
        quotas.on_namespace(namespace(rps="5"), namespace(rps="five"))
        quotas.on_namespace(namespace(rps="five"), namespace(rps="five"))
    assert len(caplog.records) == 1
    assert 'the namespace a is ignored: faaslite.dev/rps: "five"' in caplog.text
    assert quotas.of("a") is None and changed == ["a", "a"]
    quotas.on_namespace(namespace(rps="five"), namespace(concurrency="2"))
    assert quotas.of("a") is found and found.limits == Limits(0, 2)
    quotas.on_namespace(namespace(concurrency="2"), None)
    assert quotas.of("a") is None
    quotas.close()
