"""What `faas node` decides before it speaks to anybody."""

import base64

import pytest
from typer.testing import CliRunner

from cli.errors import Usage
from cli.kubeconfigs import authority_of, context_document, server_of
from cli.nodes import _labels, _node_name, _random, token_secret
from cli.root import app
from faaslite.launch import joined
from faaslite.launch.cluster import prepare
from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home
from faaslite.launch.membership import Joined, enter
from faaslite.launch.settings import ClusterSettings


def test_a_token_is_the_secret_that_the_api_looks_for():
    name, secret, token = token_secret("abcdef", "0123456789abcdef", 1_700_000_000.0)
    assert name == secret["metadata"]["name"] == "bootstrap-token-abcdef"
    assert token == "abcdef.0123456789abcdef"
    assert secret["type"] == "bootstrap.kubernetes.io/token"
    assert secret["stringData"]["usage-bootstrap-authentication"] == "true"
    assert secret["stringData"]["expiration"] == "2023-11-14T22:13:20Z"
    assert len(_random(16)) == 16
    assert _random(16) != _random(16)


@pytest.mark.parametrize("name", ["Node", "-a", "a-", "a_b", "x" * 64, "a b"])
def test_names_that_no_node_can_have(name):
    with pytest.raises(Usage, match="no name for a node"):
        _node_name(name)


def test_names_and_labels():
    assert _node_name("rack-1.example") == "rack-1.example"
    assert _labels(["a=b", "c="]) == {"a": "b", "c": ""}
    for wrong in ("a", "=b"):
        with pytest.raises(Usage, match="KEY=VALUE"):
            _labels([wrong])


def test_what_a_kubeconfig_says_of_its_cluster():
    document = context_document("x", "https://a:1/", b"PEM", "t", "default")
    assert (server_of(document), authority_of(document)) == ("https://a:1", "PEM")
    assert base64.b64decode(document["clusters"][0]["cluster"]["certificate-authority-data"]) == b"PEM"
    assert (server_of({}), authority_of({})) == ("", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["https://a:1", "--token", "x.y"], "--ca-hash or --ca-file is needed"),
        (["https://a:1", "--token", "x.y", "--ca-hash", "sha256:zz"], "--ca-hash 'sha256:zz' is not sha256:"),
        (["https://a:1", "--token", "x.y", "--ca-hash", "0" * 64, "--ca-file", "f"], "one of them"),
        (["https://a:1"], "--token is needed"),
        (["http://a:1"], "is not the URL of an API"),
        (["--token", "x.y"], "say which cluster to join"),
    ],
)
def test_what_join_asks_for(words, message, tmp_path):
    result = CliRunner().invoke(app, ["node", "join", *words, "--name", "n", "--data-dir", str(tmp_path)])
    assert isinstance(result.exception, Usage)
    assert message in str(result.exception)


async def test_a_data_dir_is_a_clusters_or_a_nodes(tmp_path, capsys):
    home = Home(tmp_path)
    assert joined.main([str(tmp_path)]) == 1
    assert "is no node's data dir: join a cluster" in capsys.readouterr().err
    home.settings.write_text("{}")
    with pytest.raises(LaunchError, match="is the data dir of a cluster"):
        await enter(home, Joined("https://a:1", "n"), b"", "x.y")
    home.joined.write_text("{}")
    with pytest.raises(LaunchError, match="of a node that has joined"):
        prepare(home, ClusterSettings())
