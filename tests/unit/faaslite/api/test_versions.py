"""Versions of Secrets: what is written, who holds what, and what may go."""

from __future__ import annotations

from typing import Any

from faaslite.api.versions import current_of, head, held, number_of, pinned, secrets_in, unneeded, version

SPEC = {
    "volumes": [
        {"name": "a", "secret": {"secretName": "db", "items": []}},
        {"name": "b", "secret": {"secretName": "other"}},
        {"name": "c", "emptyDir": {}},
        {"name": "d", "projected": {"sources": [{"secret": {"name": "sealed"}}, {"downwardAPI": {}}]}},
    ],
    "containers": [
        {
            "name": "c",
            "env": [
                {"name": "URL", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}},
                {"name": "PLAIN", "value": "db"},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            ],
            "envFrom": [{"secretRef": {"name": "db"}, "prefix": "P_"}, {"configMapRef": {"name": "db"}}],
        }
    ],
}


def test_every_use_of_a_secret_is_of_its_current_version() -> None:
    found = pinned(SPEC, {"db": "db-v3"})
    assert secrets_in(SPEC) == {"db", "other", "sealed"}
    assert secrets_in(found) == {"db-v3", "other", "sealed"}
    assert found["volumes"][0] == {"name": "a", "secret": {"secretName": "db-v3", "items": []}}
    (container,) = found["containers"]
    assert container["envFrom"] == [{"secretRef": {"name": "db-v3"}, "prefix": "P_"}, {"configMapRef": {"name": "db"}}]
    assert container["env"][1] == {"name": "PLAIN", "value": "db"}
    assert pinned(SPEC, {}) == SPEC


def test_the_head_says_its_version_and_a_version_is_sealed_and_belongs_to_it() -> None:
    stored = {
        "metadata": {"name": "db", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"}},
        "data": {"k": "MQ=="},
    }
    assert current_of(stored) == 0
    found = head(stored, 2, {"k": "Mg=="})
    assert current_of(found) == 2
    assert found["metadata"]["resourceVersion"] == "7" and found["metadata"]["labels"]["a"] == "b"
    made = version("db", "team", 2, {"k": "Mg=="}, "u", "Opaque")
    assert (made["immutable"], number_of(made), made["metadata"]["name"]) == (True, 2, "db-v2")
    assert made["metadata"]["ownerReferences"][0]["uid"] == "u"
    for text in ("", "x", "-1", "²"):
        broken: dict[str, Any] = {
            "metadata": {"labels": {"faaslite.dev/versioned": ""}, "annotations": {"faaslite.dev/secret-version": text}}
        }
        assert current_of(broken) == 0


def pod(name: str, secret: str, phase: str = "Running") -> dict[str, Any]:
    spec = {"volumes": [{"name": "v", "secret": {"secretName": secret}}], "containers": []}
    return {"metadata": {"name": name}, "spec": spec, "status": {"phase": phase}}


def test_who_holds_what() -> None:
    pods = [
        pod("a", "db-v2"),
        pod("b", "db"),
        pod("c", "db-v1", "Failed"),
        pod("d", "other-v1"),
        pod("e", "db-v2", "Pending"),
    ]
    assert held("db", [1, 2], pods) == {0: ["b"], 1: [], 2: ["a", "e"]}


def test_only_what_nobody_needs_may_go() -> None:
    nobody: dict[int, list[str]] = {0: [], 1: [], 2: [], 3: [], 4: []}
    assert unneeded(4, nobody, [], "db") == [1, 2]
    assert unneeded(4, {**nobody, 1: ["a"]}, ["db-v2"], "db") == []
    assert unneeded(2, nobody, [], "db") == []
    assert unneeded(0, {0: []}, [], "db") == []
