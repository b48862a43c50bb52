"""A platform whose CA is replaced, and one that is asked with credentials and files that are worth nothing."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml


@pytest.fixture(scope="module")
def ours(platforms: Any) -> Any:
    """A platform on the process runtime that is up at first; its tests start and stop it."""
    made = platforms("--runtime", "process", "--api-port", "0", "--gateway-port", "0")
    made.up()
    return made


def answer(platform: Any, kubeconfig: Path) -> int | str:
    """The code that the API gives to who has that kubeconfig, or why there is no connection."""
    document = yaml.safe_load(kubeconfig.read_text())
    import base64

    ca = base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]).decode()
    token = document["users"][0]["user"]["token"]
    request = urllib.request.Request(f"{platform.api}/api/v1/nodes", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cadata=ca), timeout=10) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        return str(error.reason)


def test_the_ca_is_replaced_and_the_cluster_goes_on(ours: Any, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.write_text((ours.home / "kubeconfig").read_text())
    ours.faas("certs", "rotate", check=False).fails("the platform runs", "`faas down` first")
    listed = ours.faas("certs", "list", "-o", "json").json
    assert {"ca", "apiserver", "node-node-1"} <= {each["name"] for each in listed} and listed[-1]["name"] == "ca"
    assert ours.status()["warnings"] == []
    ours.faas("down")
    assert "trusted beside the old one" in ours.faas("certs", "rotate").out
    assert "the new CA signs now" in ours.faas("certs", "rotate").out
    ours.up()
    after = ours.home / "kubeconfig"
    assert answer(ours, after) == 200
    assert "certificate verify failed" in str(answer(ours, before)), "only who has the new kubeconfig goes on"
    ours.environment["FAASLITE_KUBECONFIG"] = str(before)
    ours.faas("list", check=False).fails(
        "is of a CA that", "doesn't trust: get a new kubeconfig with `faas login`", code=4
    )
    stranger = tmp_path / "stranger"
    stranger.write_text(after.read_text().replace(ours.token, "x" * 43))
    ours.environment["FAASLITE_KUBECONFIG"] = str(stranger)
    ours.faas("list", check=False).fails("the API refused the credentials in", "get new ones with `faas login`")
    del ours.environment["FAASLITE_KUBECONFIG"]
    found = json.loads(ours.faas("status", "-o", "json").out)
    assert [each["status"] for each in found["nodes"]] == ["Ready"], "nodes have certificates of the new one"


def test_the_audit_log_says_who_did_what_and_not_how_the_platform_lives(ours: Any, wait_until: Any) -> None:
    ours.faas("secret", "create", "audited", "--from-literal", "password=hunter2")
    path = ours.home / "logs" / "audit.log"

    def lines() -> list[Any]:
        return [json.loads(each) for each in path.read_text().splitlines()]

    def written() -> Any:
        return [
            each
            for each in lines()
            if each["objectRef"].get("name") == "audited" or each["requestURI"].endswith("/secrets")
        ]

    wait_until("the line of a moment ago", written)
    assert written()[0]["user"]["username"] == "admin" and written()[0]["responseStatus"]["code"] in (200, 201)
    assert "hunter2" not in path.read_text() and path.stat().st_mode & 0o077 == 0
    chatter = {"leases", "events"}
    assert not [
        each for each in lines() if each["objectRef"]["resource"] in chatter and each["responseStatus"]["code"] < 400
    ]
    assert not [each for each in lines() if each["user"].get("username") == "system:kube-controller-manager"]


def test_files_that_are_broken_stop_the_start_with_one_line(ours: Any) -> None:
    ours.faas("down", check=False)
    key = ours.home / "pki" / "service-account.key"
    for path in (key, ours.home / "pki" / "apiserver.key", ours.home / "pki" / "tokens.json"):
        kept = path.read_bytes()
        path.write_bytes(b"nonsense")
        ours.faas("up", "--detach", check=False).fails(path.name.partition(".")[0], "remove")
        path.write_bytes(kept)


def test_a_kubeconfig_that_is_broken(ours: Any, tmp_path: Path) -> None:
    path = tmp_path / "config"
    for text, why in (
        ("", "is not a kubeconfig"),
        ("a: [", "can't read the kubeconfig"),
        ("apiVersion: v1", "no current-context"),
    ):
        path.write_text(text)
        ours.environment["FAASLITE_KUBECONFIG"] = str(path)
        ours.faas("list", check=False).fails(why, str(path))
    ours.environment["FAASLITE_KUBECONFIG"] = str(tmp_path / "none")
    ours.faas("list", check=False).fails("none")
    del ours.environment["FAASLITE_KUBECONFIG"]
