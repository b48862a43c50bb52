"""Teams on one cluster, as their people and their administrator see it: namespaces, tokens, logins, secrets that are rotated."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TEAM, UNBOUNDED = "team-a", "team-b"
FIRST, SECOND, THIRD = "first-and-nobody-elses", "second-and-nobody-elses", "third-and-nobody-elses"
CODE = """
    import os, time

    def handle(event, context):
        time.sleep(float(event.query.get("pause", 0)))
        if event.method == "POST":
            return "read nothing"
        path = os.path.join(os.environ["FAASLITE_SECRETS"], "db", "password")
        return {"file": open(path).read(), "env": os.environ.get("PASSWORD")}
"""


class TestNamespaces:
    def test_made_with_bounds_and_described(self, platform: Any) -> None:
        made = platform.faas(
            "namespace",
            "create",
            TEAM,
            "--cpu",
            "4",
            "--memory",
            "8Gi",
            "--pods",
            "50",
            "--functions",
            "20",
            "--rps",
            "200",
            "--concurrency",
            "50",
        )
        assert "cpu 4, memory 8Gi, pods 50, functions 20, rps 200, concurrency 50" in made.out
        assert "stored now" in made.err
        platform.deploy(
            "counted", "def handle(event, context):\n    return 1\n", "-n", TEAM, "--memory", "64Mi", "--min", "1"
        )
        shown = platform.faas("namespace", "describe", TEAM).out
        assert "200 a second, 50 at one time" in shown and "baseline" in shown
        rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if len(line.split()) == 3}
        assert rows["pods"][1] == "50" and rows["count/functions.faaslite.dev"][1] == "20"

    def test_quota_use_is_shown(self, platform: Any, wait_until: Callable[..., Any]) -> None:
        def used() -> dict[str, str]:
            quotas = platform.faas("namespace", "describe", TEAM, "-o", "json").json["quotas"]
            return dict(quotas[0].get("status", {}).get("used", {}))

        wait_until(
            "one function and its Pod",
            lambda: (used().get("count/functions.faaslite.dev"), used().get("pods")) == ("1", "1"),
        )
        assert used()["limits.memory"] == "64Mi"
        platform.faas("delete", "counted", "-n", TEAM)

    def test_again_changes_what_is_said_alone(self, platform: Any) -> None:
        assert "is as it should be" in platform.faas("namespace", "create", TEAM).out
        platform.faas("namespace", "create", TEAM, "--pods", "40")
        platform.faas("namespace", "set", TEAM, "--cpu", "none", "--rps", "5")
        found = platform.faas("namespace", "describe", TEAM, "-o", "json").json
        hard = found["quotas"][0]["spec"]["hard"]
        assert hard == {
            "limits.memory": "8Gi",
            "requests.memory": "8Gi",
            "pods": "40",
            "count/functions.faaslite.dev": "20",
        }
        assert found["namespace"]["metadata"]["annotations"] == {
            "faaslite.dev/rps": "5",
            "faaslite.dev/concurrency": "50",
        }

    def test_goes_on_where_it_stopped(self, platform: Any) -> None:
        """What is there of an attempt that failed half-way is left as it is; the rest is made."""
        platform.kube("POST", "/api/v1/namespaces", {"metadata": {"name": "half"}})
        platform.kube("POST", "/api/v1/namespaces/half/serviceaccounts", {"metadata": {"name": "ci"}})
        # A quota that allows no further objects of the kind that comes late: the creation stops there.
        stopper = {
            "metadata": {"name": "stopper"},
            "spec": {"hard": {"count/rolebindings.rbac.authorization.k8s.io": "0"}},
        }
        assert platform.kube("POST", "/api/v1/namespaces/half/resourcequotas", stopper).status == 201
        stopped = platform.faas("namespace", "create", "half", "--pods", "3", check=False)
        stopped.fails(
            "RoleBinding", "exceeded quota", "done before", "ResourceQuota team created", "run the command again"
        )
        assert platform.kube("DELETE", "/api/v1/namespaces/half/resourcequotas/stopper").status == 200
        platform.faas("namespace", "create", "half", "--pods", "3")
        found = platform.faas("namespace", "describe", "half", "-o", "json").json
        assert {each["metadata"]["name"] for each in found["bindings"]} == {
            "faaslite-ci",
            "team-developers",
            "team-viewers",
        }

    def test_a_bad_value_is_one_line_and_nothing_is_made(self, platform: Any) -> None:
        platform.faas("namespace", "create", "unmade", "--cpu", "lots", check=False).fails("not a quantity", code=2)
        assert platform.kube("GET", "/api/v1/namespaces/unmade").status == 404

    def test_a_namespace_that_isnt_there_can_not_be_set(self, platform: Any) -> None:
        platform.faas("namespace", "set", "nowhere", "--pods", "3", check=False).fails("nowhere", code=3)
        platform.faas("namespace", "set", TEAM, check=False).fails("nothing is said", code=2)


@pytest.fixture(scope="module")
def team(platform: Any) -> None:
    """It is there, also where these tests run alone."""
    platform.faas("namespace", "create", TEAM)


@pytest.mark.usefixtures("team")
class TestTokens:
    def login(self, platform: Any, folder: Path, token: str, *flags: str, check: bool = True) -> tuple[Any, Path]:
        file = folder / "config"
        done = platform.faas(
            "login", platform.api, "--kubeconfig", str(file), "-n", TEAM, *flags, check=check, input=token
        )
        return done, file

    def test_login_and_who_that_is(self, platform: Any, tmp_path: Path) -> None:
        token = platform.faas("token", "create", "-n", TEAM, "--role", "developer", "--name", "ann", "--ttl", "12h").out
        fingerprint = platform.faas("kubeconfig", "--fingerprint").out.strip()
        done, file = self.login(platform, tmp_path, token, "--fingerprint", fingerprint)
        assert token.strip() not in done.out + done.err
        assert f"as system:serviceaccount:{TEAM}:ann" in done.out
        assert file.stat().st_mode & 0o777 == 0o600
        mine = {**platform.environment, "FAASLITE_KUBECONFIG": str(file)}
        mine.pop("FAASLITE_HOME")
        who = platform.faas("whoami", "-o", "json", env=mine).json
        assert who["username"] == f"system:serviceaccount:{TEAM}:ann"
        assert (who["roles"], who["namespaces"]) == ([{"role": "developer", "namespace": TEAM}], [TEAM])
        # The gateway comes with the login: no data dir is needed.
        platform.deploy("theirs", "def handle(event, context):\n    return 1\n", "-n", TEAM)
        assert platform.faas("invoke", "theirs", "-n", TEAM, env=mine).out.strip() == "1"
        platform.faas("list", "-n", "default", env=mine, check=False).fails("forbidden")
        platform.faas("delete", "theirs", "-n", TEAM)

    def test_a_login_keeps_what_else_the_file_has(self, platform: Any, tmp_path: Path) -> None:
        token = platform.faas("token", "create", "-n", TEAM, "--role", "viewer").out
        authority = ("--ca-file", str(platform.home / "pki" / "ca.crt"))
        self.login(platform, tmp_path, token, *authority, "--context", "one")
        _, file = self.login(platform, tmp_path, token, *authority, "--context", "two")
        names = [line.split()[-1] for line in file.read_text().splitlines() if line.startswith("- name:")]
        assert names == ["one", "two"] * 3 and "current-context: two" in file.read_text()

    def test_logins_that_fail_write_nothing(self, platform: Any, tmp_path: Path) -> None:
        token = platform.faas("token", "create", "-n", TEAM, "--role", "viewer").out
        for flags, text, code, sent in (
            ((), "isn't trusted here", 1, token),
            (("--fingerprint", "sha256:" + "0" * 64), "has the fingerprint", 1, token),
            (("--fingerprint", "abc"), "64 hex digits", 2, token),
            (("--ca-file", str(tmp_path / "none")), "No such file", 2, token),
            (("--ca-file", str(platform.home / "pki" / "ca.crt")), "doesn't know the token", 1, "eyJ.a.b"),
            (("--ca-file", str(platform.home / "pki" / "ca.crt")), "standard input", 2, ""),
        ):
            done, file = self.login(platform, tmp_path, sent, *flags, check=False)
            done.fails(text, code=code)
            assert not file.exists() and (not sent or sent.strip() not in done.err)
        platform.faas("login", "http://127.0.0.1:1", check=False, input=token).fails("plain HTTP", code=2)

    def test_listed_and_revoked_everywhere_at_once(self, platform: Any, wait_until: Callable[..., Any]) -> None:
        token = platform.faas(
            "token", "create", "-n", TEAM, "--role", "developer", "--name", "bob", "--ttl", "45m"
        ).out.strip()
        (row,) = [
            each for each in platform.faas("token", "list", "-n", TEAM, "-o", "json").json if each["name"] == "bob"
        ]
        assert row["role"] == "developer" and row["until"]
        platform.deploy("private", "def handle(event, context):\n    return 1\n", "-n", TEAM)
        place = f"/apis/faaslite.dev/v1/namespaces/{TEAM}/functions/private"
        platform.kube(
            "PATCH", place, {"spec": {"http": {"visibility": "private"}}}, content_type="application/merge-patch+json"
        )
        asked = [
            platform.api + place,
            f"{platform.url}/system/calls?namespace={TEAM}",
            f"{platform.url}/function/private.{TEAM}",
        ]
        statuses = lambda: [platform.http(each, Authorization=f"Bearer {token}").status for each in asked]  # noqa: E731
        assert statuses() == [200, 200, 200]
        platform.faas("token", "revoke", "bob", "-n", TEAM)
        assert statuses()[0] == 401
        wait_until("gateway and jobs know", lambda: statuses() == [401, 401, 401], 2)  # by their watches
        assert "bob" not in platform.faas("token", "list", "-n", TEAM).out
        platform.faas("delete", "private", "-n", TEAM)

    def test_a_right_that_is_taken_is_gone_at_once(self, platform: Any, wait_until: Callable[..., Any]) -> None:
        token = platform.faas("token", "create", "-n", TEAM, "--role", "developer", "--name", "eve").out.strip()
        asked = f"{platform.url}/system/calls?namespace={TEAM}"
        assert platform.http(asked, Authorization=f"Bearer {token}").status == 200
        binding = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{TEAM}/rolebindings/faaslite-eve"
        assert platform.kube("DELETE", binding).status == 200
        wait_until("jobs knows", lambda: platform.http(asked, Authorization=f"Bearer {token}").status == 403, 2)


@pytest.fixture(scope="module")
def rotated(platform: Any) -> Any:
    """A function that reads the secret as a file and as a variable."""
    platform.faas("namespace", "create", UNBOUNDED)
    platform.faas(
        "secret", "create", "db", "-n", UNBOUNDED, "--from-literal", f"password={FIRST}", "--from-literal", "user=ann"
    )
    platform.deploy("reader", CODE, "-n", UNBOUNDED, "--secret", "db", "--min", "2", "--max", "2")
    place = f"/apis/faaslite.dev/v1/namespaces/{UNBOUNDED}/functions/reader"
    variable = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    change = {"spec": {"env": [variable], "scale": {"idle": "1s", "window": "6s", "min": 2, "max": 2}}}
    assert platform.kube("PATCH", place, change, content_type="application/merge-patch+json").status == 200
    return platform


class TestSecrets:
    def reads(self, platform: Any) -> str:
        found = platform.call(f"/function/reader.{UNBOUNDED}").json
        assert found["env"] in (found["file"], None)
        return str(found["file"])

    @pytest.mark.timeout(240)
    def test_rotated_under_load_without_a_failed_call(
        self, rotated: Any, load: Any, wait_until: Callable[..., Any]
    ) -> None:
        wait_until("the variable", lambda: rotated.call(f"/function/reader.{UNBOUNDED}").json["env"] == FIRST)
        with load(f"{rotated.url}/function/reader.{UNBOUNDED}?pause=0.05", clients=2, pause=0.01) as calls:
            done = rotated.faas("secret", "rotate", "db", "-n", UNBOUNDED, "--from-literal", f"password={SECOND}")
            calls.wait(4)
        assert "is at version 2" in done.out and "holds version 2" in done.err
        assert calls.failed == []
        assert self.reads(rotated) == SECOND
        rows = {
            each["version"]: each
            for each in rotated.faas("secret", "versions", "db", "-n", UNBOUNDED, "-o", "json").json
        }
        assert (rows[2]["state"], len(rows[2]["instances"]), rows[1]["state"]) == ("current", 2, "retired")
        assert rows[2]["keys"] == ["password", "user"]
        names = {
            each["metadata"]["name"]
            for each in rotated.pods("reader", UNBOUNDED)
            if not each["metadata"].get("deletionTimestamp")
        }
        assert set(rows[2]["instances"]) == names

    def test_versions_are_sealed(self, rotated: Any) -> None:
        place = f"/api/v1/namespaces/{UNBOUNDED}/secrets/db-v2"
        for change in ({"data": {"password": "eA=="}}, {"immutable": False}, {"stringData": {"more": "x"}}):
            reply = rotated.kube("PATCH", place, change, content_type="application/merge-patch+json")
            assert reply.status == 422 and "immutable" in reply.json["message"]

    @pytest.mark.timeout(240)
    def test_back_and_on(self, rotated: Any) -> None:
        rotated.faas("secret", "rollback", "db", "-n", UNBOUNDED)
        assert self.reads(rotated) == FIRST
        rotated.faas("secret", "rollback", "db", "-n", UNBOUNDED, "--to", "9", check=False).fails(
            "no version 9; there are 1, 2", code=3
        )
        rotated.faas("secret", "rollback", "db", "-n", UNBOUNDED, "--to", "1", check=False).fails("already", code=2)
        rotated.faas("secret", "rotate", "db", "-n", UNBOUNDED, "--from-literal", f"password={THIRD}")
        assert self.reads(rotated) == THIRD
        head = rotated.kube("GET", f"/api/v1/namespaces/{UNBOUNDED}/secrets/db").json
        assert base64.b64decode(head["data"]["password"]).decode() == THIRD
        assert head["metadata"]["annotations"]["faaslite.dev/secret-version"] == "3"
        rotated.faas("secret", "rotate", "none", "-n", UNBOUNDED, "--from-literal", "a=b", check=False).fails(
            "no secret none", code=3
        )

    def test_the_keys_that_they_and_queued_calls_are_encrypted_with(self, rotated: Any) -> None:
        before = self.reads(rotated)
        call = rotated.call(f"/async-function/reader.{UNBOUNDED}", b"x").json["callId"]
        rotated.faas("calls", "wait", call)
        for number in ("2", "3"):
            done = rotated.faas("secret", "rotate-key")
            for what in ("secret", "queued call"):
                assert f"every {what} is encrypted with the new key {number}; the old one is gone" in done.out
            for name in ("encryption.keys", "calls.keys"):
                assert [each["id"] for each in json.loads((rotated.home / name).read_text())["keys"]] == [number]
        assert self.reads(rotated) == before
        assert rotated.faas("calls", "replay", call, "--wait", check=False).code == 0

    def test_no_value_is_said_anywhere(self, rotated: Any) -> None:
        """Output of every command that could, events, errors, logs, what is on disk: the values are in none of it."""
        commands = [
            ("secret", "list", "-n", UNBOUNDED, "-o", "json"), ("secret", "versions", "db", "-n", UNBOUNDED, "-o", "yaml"), ("describe", "reader", "-n", UNBOUNDED),
            ("describe", "reader", "-n", UNBOUNDED, "-o", "json"), ("why", "reader", "-n", UNBOUNDED), ("logs", "reader", "-n", UNBOUNDED), ("diff", str(rotated.sources / "reader"), "-n", UNBOUNDED),
        ]  # fmt: skip
        said = {" ".join(each): (done := rotated.faas(*each, check=False)).out + done.err for each in commands}
        twice = rotated.faas(
            "secret", "create", "db", "-n", UNBOUNDED, "--from-literal", f"password={THIRD}", check=False
        )
        said["a secret that is there"] = twice.err + twice.out
        wrong = rotated.faas("secret", "create", "x", "-n", UNBOUNDED, "--from-literal", THIRD, check=False)
        said["a literal without a key"] = wrong.err + wrong.out
        for document in (
            {"data": {"k": THIRD}},
            {"data": {"k": {"v": THIRD}}},
            {"data": THIRD},
            {"stringData": {"..": THIRD}},
            {"data": {"k": base64.b64encode(THIRD.encode()).decode() + "!"}},
        ):
            reply = rotated.kube(
                "POST", f"/api/v1/namespaces/{UNBOUNDED}/secrets", {"metadata": {"name": "wrong"}, **document}
            )
            assert reply.status >= 400
            said[f"the refusal of {json.dumps(document)[:30]}"] = reply.body.decode()
        said["events"] = json.dumps(rotated.kube("GET", "/api/v1/events").json)
        said["as a table"] = rotated.http(f"{rotated.api}/api/v1/namespaces/{UNBOUNDED}/secrets", Authorization=f"Bearer {rotated.token}", Accept="application/json;as=Table;v=v1;g=meta.k8s.io").body.decode().replace(base64.b64encode(THIRD.encode()).decode(), "")  # fmt: skip
        for file in (
            *(rotated.home / "logs").rglob("*.log"),
            rotated.home / "state.db",
            rotated.home / "state.db-wal",
            rotated.home / "calls.db",
        ):
            said[str(file)] = file.read_bytes().decode("latin-1")
        values = [
            each for value in (FIRST, SECOND, THIRD) for each in (value, base64.b64encode(value.encode()).decode())
        ]
        told = {where: value for where, text in said.items() for value in values if value in text}
        assert not told, told

    def test_nothing_of_them_stays_on_disk_when_the_platform_is_down(self, rotated: Any) -> None:
        copies = list(rotated.home.glob("nodes/*/pods/*/volumes/*/*"))
        assert copies, "there is nothing that could stay"
        rotated.faas("down")
        left = [
            each
            for each in rotated.home.rglob("*")
            if each.is_file() and any(value.encode() in each.read_bytes() for value in (FIRST, SECOND, THIRD))
        ]
        assert left == []
        rotated.up()
        assert self.reads(rotated) == THIRD
