"""Kubeconfigs as documents, and whom a binding is about."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli.identity import concerns
from cli.kubeconfigs import context_document, fingerprint, gateway_of, joined, write

NEW = context_document("here", "https://h:6443", b"CA", "token", "team-a", "http://h:8080")


def test_a_context_has_all_that_it_takes() -> None:
    assert NEW["current-context"] == "here"
    assert NEW["clusters"][0]["cluster"] == {"server": "https://h:6443", "certificate-authority-data": "Q0E="}
    assert NEW["users"][0]["user"] == {"token": "token"}
    assert NEW["contexts"][0]["context"]["namespace"] == "team-a"
    assert gateway_of(NEW) == "http://h:8080"
    assert (
        "certificate-authority-data" not in context_document("a", "https://h", None, "t", "n")["clusters"][0]["cluster"]
    )


def test_what_else_a_file_has_stays() -> None:
    other = context_document("there", "https://o", None, "t", "n")
    found = joined(
        {**joined(other, NEW), "preferences": {"colors": True}}, context_document("here", "https://h2", None, "t2", "n")
    )
    assert [each["name"] for each in found["clusters"]] == ["there", "here"]
    assert found["clusters"][1]["cluster"]["server"] == "https://h2"
    assert found["preferences"] == {"colors": True} and gateway_of(found) == ""
    assert joined({}, NEW) == NEW


def test_a_file_is_its_owners_alone_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config"
    write(path, NEW)
    assert path.stat().st_mode & 0o777 == 0o600 and yaml.safe_load(path.read_text()) == NEW
    with pytest.raises(yaml.YAMLError):
        write(path, {"bad": object()})
    assert yaml.safe_load(path.read_text()) == NEW and [each.name for each in path.parent.iterdir()] == ["config"]


def test_what_is_no_certificate_has_no_fingerprint() -> None:
    with pytest.raises(ValueError):
        fingerprint(b"nothing")


@pytest.mark.parametrize(
    ("subject", "about"),
    [
        ({"kind": "User", "name": "ann"}, True), ({"kind": "User", "name": "bob"}, False), ({"kind": "Group", "name": "dev"}, True), ({"kind": "Group", "name": "ann"}, False),
        ({"kind": "ServiceAccount", "name": "ann"}, False),
    ],
)  # fmt: skip
def test_whom_a_binding_is_about(subject: dict[str, str], about: bool) -> None:
    assert concerns({"subjects": [subject]}, {"username": "ann", "groups": ["dev"]}, "team") is about


def test_accounts_are_of_the_bindings_namespace_unless_it_says() -> None:
    robot = {"username": "system:serviceaccount:team:robot", "groups": []}
    assert concerns({"subjects": [{"kind": "ServiceAccount", "name": "robot"}]}, robot, "team")
    assert not concerns(
        {"subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "other"}]}, robot, "team"
    )
    assert not concerns({}, robot, "team")
