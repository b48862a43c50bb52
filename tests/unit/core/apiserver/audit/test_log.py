"""The log's file: who may read it, when it is set aside, and what happens to lines that can't be written."""

import asyncio
import json
import stat

import pytest

from core.apiserver.audit import log as module
from core.apiserver.audit.events import Record
from core.apiserver.audit.log import AuditLog
from core.apiserver.audit.policy import Level
from core.apiserver.authn import User
from core.apiserver.dispatch import parse

SCOPE = {"path": "/api/v1/pods", "query_string": b"", "client": ("127.0.0.1", 1)}
INFO = parse("GET", "/api/v1/pods", {})


def record(number=0, **more):
    given = {
        "level": Level.METADATA, "stage": "ResponseComplete", "number": number, "received": 1.0, "now": 2.0, "user": User("ann"), "impersonated": None,
        "info": INFO, "scope": SCOPE, "user_agent": "kubectl", "code": 200,
    }  # fmt: skip
    return Record(**{**given, **more})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.log"


def lines(path):
    found = [json.loads(each) for each in path.read_text().splitlines()]
    return [{**each, "auditID": str(int(each["auditID"].rpartition("-")[2], 16))} for each in found]


async def test_lines_are_gathered_and_all_are_there_after_the_end(path):
    log = AuditLog(path)
    log.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for number in range(module.BATCH + 7):
        log.add(record(number))
    await log.stop()
    assert [each["auditID"] for each in lines(path)] == [str(each) for each in range(module.BATCH + 7)]


async def test_a_line_is_written_after_a_moment_without_an_end(path, monkeypatch):
    monkeypatch.setattr(module, "DELAY", 0.0)
    log = AuditLog(path)
    log.start()
    log.add(record())
    async with asyncio.timeout(5):
        while not path.stat().st_size:  # noqa: ASYNC110
            await asyncio.sleep(0)
    await log.stop()


async def test_rotation(path):
    log = AuditLog(path, size=2000, backups=2)
    log.start()
    size = 0
    for number in range(12):
        log._write([record(number, user_agent="x" * 900)])
        size = max(size, path.stat().st_size)
    await log.stop()
    kept = [path, path.with_name("audit.log.1"), path.with_name("audit.log.2")]
    assert sorted(path.parent.iterdir()) == kept and size < 3500
    found = [each["auditID"] for file in reversed(kept) for each in lines(file)]
    assert found == [str(each) for each in range(12 - len(found), 12)], "the newest, in order"
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in kept)


async def test_a_file_of_before_goes_on(path):
    for number in range(2):
        log = AuditLog(path)
        log.start()
        log.add(record(number))
        await log.stop()
    assert [each["auditID"] for each in lines(path)] == ["0", "1"]


async def test_a_disk_that_takes_nothing_is_complained_of_and_does_no_more(path, monkeypatch, caplog):
    log = AuditLog(path)
    log.start()
    monkeypatch.setattr(module.os, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    log.add(record())
    log._flush()
    await asyncio.wait((log._writing,))
    assert log.lost == 1 and "1 lines of the audit log" in caplog.text and "No space left" in caplog.text
    monkeypatch.undo()
    log.add(record(7))
    await log.stop()
    assert [each["auditID"] for each in lines(path)] == ["7"]


async def test_a_bound_on_what_waits(path, monkeypatch):
    monkeypatch.setattr(module, "BOUND", 3)
    log = AuditLog(path)
    log.start()
    for number in range(5):
        log.add(record(number))
    assert log.lost == 2
    await log.stop()
    assert len(lines(path)) == 3


def test_bodies_as_json_whatever_they_came_as():
    from core.apiserver.audit.events import render

    said = b"a: [1]\nmetadata: {name: x, managedFields: [1]}\n"
    found = json.loads(
        render(record(level=Level.REQUEST, request=said, content_type="application/yaml", no_managed_fields=True))
    )
    assert found["requestObject"] == {"a": [1], "metadata": {"name": "x"}}
    assert (
        json.loads(render(record(level=Level.REQUEST, request=b"{", content_type="application/json")))["requestObject"]
        is None
    )
    assert "requestObject" not in json.loads(render(record(request=said)))


def test_what_webhooks_want_noted_stands_beside_the_decision():
    from core.apiserver.audit.events import render

    found = json.loads(render(record(decision="allow", reason="r", notes={"hook.dev/checked": "yes"})))
    assert found["annotations"] == {
        "authorization.k8s.io/decision": "allow",
        "authorization.k8s.io/reason": "r",
        "hook.dev/checked": "yes",
    }
    assert json.loads(render(record(notes={"a/b": "c"})))["annotations"] == {"a/b": "c"}
