"""kopf's admission handlers: it registers its webhooks with us, we call them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightkube import ApiError, Client, KubeConfig
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.admissionregistration_v1 import MutatingWebhookConfiguration, ValidatingWebhookConfiguration
from lightkube.resources.core_v1 import ConfigMap
from lightkube.types import PatchType

from faaslite.launch.pki import Pki

OPERATOR = Path(__file__).with_name("admission_under_test.py")
NAME = "kopf.example.dev"


@pytest.fixture
def client(kubeconfig: str) -> Iterator[Client]:
    made = Client(config=KubeConfig.from_file(kubeconfig), field_manager="test")
    yield made
    made._client._client.close()


@pytest.fixture
def operator(client: Client, kubeconfig: str, tmp_path: Path) -> Iterator[Path]:
    """The log of a running operator whose webhooks are registered."""
    pki = Pki(tmp_path / "pki")
    pki.folder.mkdir()
    pki.prepare(["127.0.0.1"], [])
    certificate, key = pki.files("apiserver")
    log = tmp_path / "kopf.log"
    environment = {
        "KUBECONFIG": kubeconfig, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
        "HOOK_CERT": str(certificate), "HOOK_KEY": str(key), "HOOK_CA": str(pki.ca_file),
    }  # fmt: skip
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "--standalone", "--namespace", "default", str(OPERATOR)],
            stdout=out, stderr=out, env=environment,
        )  # fmt: skip
        try:
            for kind in (ValidatingWebhookConfiguration, MutatingWebhookConfiguration):
                for _, found in client.watch(kind, fields={"metadata.name": NAME}, server_timeout=20):
                    if found.webhooks:
                        break
                else:
                    raise AssertionError(f"no webhooks were registered: {log.read_text()}")
            yield log
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    for kind in (ValidatingWebhookConfiguration, MutatingWebhookConfiguration):
        client.delete(kind, NAME)


def _config_map(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default", labels={"checked": "yes"}), data=data)


def test_admission_handlers_decide(client: Client, operator: Path, name: str) -> None:
    made = client.create(_config_map(name))
    assert made.data == {"size": "3"}, operator.read_text()
    assert made.metadata.annotations == {"completed-by": "kopf"}
    with pytest.raises(ApiError) as caught:
        client.create(_config_map(f"{name}-2", size="big"))
    assert caught.value.status.code == 422
    # kopf names its webhooks after the handler; the words behind it are the handler's.
    assert caught.value.status.message.startswith('admission webhook "check')
    assert caught.value.status.message.endswith("denied the request: 'big' is no size, admin")
    with pytest.raises(ApiError, match="denied the request: 'huge' is no size"):
        client.patch(ConfigMap, name, {"data": {"size": "huge"}}, namespace="default", patch_type=PatchType.MERGE)
    changed = client.patch(ConfigMap, name, {"data": {"size": "4"}}, namespace="default", patch_type=PatchType.MERGE)
    assert changed.data == {"size": "4"}
    client.create(ConfigMap(metadata=ObjectMeta(name=f"{name}-3", namespace="default"), data={"size": "big"}))
    client.delete(ConfigMap, name, namespace="default")
