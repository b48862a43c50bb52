from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.api.kinds import POD
from core.client.http import HttpTransport
from core.client.kubeconfig import KubeconfigError, read_kubeconfig
from core.errors import ServiceUnavailable


def write(folder: Path, cluster: dict[str, Any], user: dict[str, Any], **context: Any) -> Path:
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "main",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
        "contexts": [
            {"name": "main", "context": {"cluster": "here", "user": "me", **context}},
            {"name": "anonymous", "context": {"cluster": "here"}},
            {"name": "broken", "context": {"cluster": "nowhere"}},
        ],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


@pytest.mark.parametrize("inline", [True, False])
async def test_it_speaks_to_the_server_with_the_user_s_certificate(
    app, seen, serve, authority, tmp_path, inline
) -> None:
    url = await serve(app, authority.server_context(*authority.issue("server", "127.0.0.1"), clients=True))
    cert, key = authority.issue("client")
    files = {"certificate-authority": authority.ca, "client-certificate": cert, "client-key": key}
    fields = (
        {f"{name}-data": data(path) for name, path in files.items()}
        if inline
        else {k: str(v) for k, v in files.items()}
    )
    cluster = {name: value for name, value in fields.items() if name.startswith("certificate")}
    user = {name: value for name, value in fields.items() if name.startswith("client")}
    path = write(tmp_path, {"server": url + "/", **cluster}, user, namespace="team-a")
    transport = HttpTransport.from_kubeconfig(path)
    assert transport.namespace == "team-a"
    assert await transport.request("GET", POD.path("default"))
    assert seen["certificate"]["subject"] == ((("commonName", "client"),),)
    await transport.close()


async def test_it_sends_the_token_and_files_are_relative_to_the_config(app, seen, serve, tmp_path) -> None:
    url = await serve(app)
    (tmp_path / "token").write_text("from a file\n")
    for user, token in (({"token": "inline"}, "inline"), ({"tokenFile": "token"}, "from a file")):
        transport = HttpTransport.from_kubeconfig(write(tmp_path, {"server": url}, user))
        assert transport.namespace == "default"
        await transport.request("GET", POD.path("default"))
        assert seen["headers"]["Authorization"] == f"Bearer {token}"
        await transport.close()
    transport = HttpTransport.from_kubeconfig(write(tmp_path, {"server": url}, {}), "anonymous")
    await transport.request("GET", POD.path("default"))
    assert "Authorization" not in seen["headers"]
    await transport.close()


async def test_verification_is_skipped_only_where_it_says_so(app, serve, authority, tmp_path) -> None:
    url = await serve(app, authority.server_context(*authority.issue("server", "127.0.0.1")))
    skipping = HttpTransport.from_kubeconfig(write(tmp_path, {"server": url, "insecure-skip-tls-verify": True}, {}))
    assert await skipping.request("GET", POD.path("default"))
    await skipping.close()
    strict = HttpTransport.from_kubeconfig(write(tmp_path, {"server": url}, {}))
    with pytest.raises(ServiceUnavailable, match="certificate verify failed"):
        await strict.request("GET", POD.path("default"))
    await strict.close()


async def test_the_server_s_certificate_may_bear_another_name(app, serve, authority, tmp_path) -> None:
    url = await serve(app, authority.server_context(*authority.issue("named", dns=("api.example",))))
    cluster = {"server": url, "certificate-authority": str(authority.ca)}
    named = HttpTransport.from_kubeconfig(write(tmp_path, {**cluster, "tls-server-name": "api.example"}, {}))
    assert await named.request("GET", POD.path("default"))
    await named.close()
    unnamed = HttpTransport.from_kubeconfig(write(tmp_path, cluster, {}))
    with pytest.raises(ServiceUnavailable):
        await unnamed.request("GET", POD.path("default"))
    await unnamed.close()


@pytest.mark.parametrize(
    ("context", "message"),
    [("none", "no context named 'none'"), ("broken", "no cluster named 'nowhere'")],
)
def test_what_is_missing_is_named(tmp_path: Path, context: str, message: str) -> None:
    with pytest.raises(KubeconfigError, match=message):
        read_kubeconfig(write(tmp_path, {"server": "http://127.0.0.1:1"}, {}), context)


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({}, {}, "malformed: KeyError: 'server'"),
        ({"server": "http://127.0.0.1:1"}, {"exec": {"command": "aws"}}, "credential plugin \\(exec\\)"),
        ({"server": "https://127.0.0.1:1", "certificate-authority": "none.crt"}, {}, "none.crt"),
        ({"server": "https://127.0.0.1:1", "certificate-authority-data": "%%%"}, {}, "malformed"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any], message: str) -> None:
    with pytest.raises(KubeconfigError, match=message):
        read_kubeconfig(write(tmp_path, cluster, user))


@pytest.mark.parametrize("content", [None, "just text", "a: [", ""])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KubeconfigError, match="kubeconfig"):
        read_kubeconfig(path)
