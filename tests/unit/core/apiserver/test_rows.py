"""Rows as bytes are those of `to_table`, at once and again later from what was kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core.api.kinds import BUILT_IN, CONFIG_MAP, EVENT, POD, Kind
from core.apiserver.cache import Codec, encode
from core.apiserver.columns import COLUMNS
from core.apiserver.forms import Form, ListMeta, render_list
from core.apiserver.registry.conversion import Conversion, ConvertingCodec
from core.apiserver.rows import KeptRows
from core.apiserver.table import partial_metadata, to_table
from core.clock import timestamp
from core.store.base import Entry

NOW = 1_700_000_000.0
WORN = {"name": "c", "restartCount": 2, "ready": True, "state": {"running": {}}, "lastState": {"terminated": {"finishedAt": timestamp(NOW - 90)}}}  # fmt: skip
PODS: list[dict[str, Any]] = [
    {"spec": {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}, "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [WORN]}},
    {"spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "s", "restartPolicy": "Always"}]}, "status": {"phase": "Pending"}},
    {"spec": {"containers": [{"name": "c"}, {"name": "d"}], "readinessGates": [{"conditionType": "x"}]}, "status": {"conditions": [{"type": "x", "status": "True"}], "reason": "Evicted"}},
    {"metadata": {"deletionTimestamp": timestamp(NOW - 5)}, "spec": {"containers": []}},
    {"metadata": {"annotations": {"text": 'with "metadata":{ in it'}}, "spec": {"containers": None, "nodeName": None}},
    {"metadata": {"creationTimestamp": None}, "spec": {}, "status": None},
    {},
]  # fmt: skip


def entry(kind: Kind, number: int, document: dict[str, Any]) -> Entry:
    metadata = {"name": f"o-{number}", "namespace": "default", "creationTimestamp": timestamp(NOW - 100 * number)}
    whole = {"apiVersion": kind.api_version, "kind": kind.kind, **document}
    whole["metadata"] = {**metadata, **document.get("metadata", {})}
    return Entry(f"/{kind.plural}/default/o-{number}", encode(whole), number + 1, number + 1)


def listed(codec: Codec, entries: list[Entry], include: str, now: float, monkeypatch: Any, *more: Any) -> Any:
    with monkeypatch.context() as at:
        at.setattr("core.apiserver.forms.wall", lambda: now)
        return json.loads(render_list(codec, entries, ListMeta(9), Form("Table", include), *more))


def expected(codec: Codec, entries: list[Entry], include: str, now: float, columns: Any = None) -> Any:
    documents = [codec.document(each) for each in entries]
    return json.loads(
        json.dumps(
            to_table(
                codec.kind,
                documents,
                now=now,
                include=include,
                columns=columns,
                list_meta={"resourceVersion": "9"},
            )
        )
    )


@pytest.mark.parametrize("include", ["Metadata", "Object", "None"])
def test_rows_of_pods_now_and_later(include: str, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, kept = Codec(POD), KeptRows()
    entries = [entry(POD, number, document) for number, document in enumerate(PODS)]
    for now in (NOW, NOW + 1, NOW + 10_000):
        assert listed(codec, entries, include, now, monkeypatch, None, kept) == expected(codec, entries, include, now)
    newer = entries[1]._replace(revision=99, value=entries[1].value.replace(b"Pending", b"Running"))
    assert listed(codec, [newer], include, NOW, monkeypatch, None, kept) == expected(codec, [newer], include, NOW)


@pytest.mark.parametrize("kind", BUILT_IN, ids=lambda kind: f"{kind.api_version}-{kind.kind}")
def test_rows_of_every_kind(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    codec, kept = Codec(kind), KeptRows()
    data: dict[str, Any] = {
        "data": {"a": "1"},
        "spec": {"replicas": 3},
        "status": {"phase": "Bound", "readyReplicas": 1},
    }
    if kind.kind in ("Event", "PodMetrics", "NodeMetrics"):
        data = {}
    entries = [entry(kind, 1, data), entry(kind, 2, {})]
    for now in (NOW, NOW + 5000):
        assert listed(codec, entries, "Metadata", now, monkeypatch, None, kept) == expected(
            codec, entries, "Metadata", now
        )


def test_what_is_said_to_be_fixed_is() -> None:
    for columns in COLUMNS.values():
        for column in columns:
            for number, document in enumerate(PODS):
                whole = json.loads(entry(POD, number, document).value)
                if column.fixed is True or (callable(column.fixed) and column.fixed(whole)):
                    assert column.cell(whole, NOW) == column.cell(whole, NOW + 1e6), column.name


def test_rows_of_custom_kinds_follow_their_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind("example.dev", "v1", "Thing", "things")
    codec, kept, entries = Codec(kind), KeptRows(), [entry(kind, 1, {"spec": {"size": 3, "since": timestamp(NOW)}})]
    for columns in (
        [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
        [{"name": "Since", "type": "date", "jsonPath": ".spec.since"}],
    ):
        for now in (NOW, NOW + 500):
            found = listed(codec, entries, "Metadata", now, monkeypatch, columns, kept)
            assert found == expected(codec, entries, "Metadata", now, columns)


def test_rows_of_objects_that_are_stored_as_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(document: dict[str, Any]) -> dict[str, Any]:
        return {
            **document,
            "metadata": {**document["metadata"], "labels": {"read": "yes"}},
            "data": {"b": "1", "c": "2"},
        }

    codec = ConvertingCodec(CONFIG_MAP, Conversion(EVENT, read, read))
    entries = [entry(EVENT, 1, {"data": {}})]
    found = listed(codec, entries, "Metadata", NOW, monkeypatch, None, KeptRows())
    assert found == expected(codec, entries, "Metadata", NOW)
    assert found["rows"][0]["cells"][1] == 2 and found["rows"][0]["object"]["metadata"]["labels"] == {"read": "yes"}


def test_lists_of_metadata_alone() -> None:
    codec, entries = Codec(POD), [entry(POD, number, document) for number, document in enumerate(PODS)]
    found = json.loads(render_list(codec, entries, ListMeta(9), Form("PartialObjectMetadata")))
    assert found["items"] == [partial_metadata(codec.document(each)) for each in entries]


def test_kept_rows_are_bounded() -> None:
    kept = KeptRows(2)
    codec = Codec(CONFIG_MAP)
    render_list(codec, [entry(CONFIG_MAP, number, {}) for number in range(5)], ListMeta(9), Form("Table"), None, kept)
    assert [kept.get((number, "v1", "ConfigMap")) is not None for number in range(1, 6)] == [False] * 3 + [True] * 2
