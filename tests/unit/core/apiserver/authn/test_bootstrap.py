"""Bootstrap tokens: which Secret makes one, and everything that makes it worth nothing."""

import base64
import json

import pytest

from core.apiserver.authn.bootstrap import BootstrapTokens
from core.clock import timestamp
from core.store.memory import MemoryStore

NOW = 1_800_000_000.0
GOOD = {
    "token-id": "abcdef",
    "token-secret": "0123456789abcdef",
    "usage-bootstrap-authentication": "true",
    "expiration": timestamp(NOW + 60),
    "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
}
TOKEN = "abcdef.0123456789abcdef"


async def user(data, token=TOKEN, **more):
    store = MemoryStore()
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items() if value is not None}
    secret = {"metadata": {"name": "x"}, "type": "bootstrap.kubernetes.io/token", "data": encoded, **more}
    await store.create("/secrets/kube-system/bootstrap-token-abcdef", json.dumps(secret).encode())
    try:
        return await BootstrapTokens(store, lambda: NOW).user(token)
    finally:
        await store.close()


async def test_who_it_is():
    found = await user(GOOD)
    assert found.name == "system:bootstrap:abcdef"
    assert found.groups == (
        "system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token", "system:authenticated",
    )  # fmt: skip
    assert (await user({**GOOD, "expiration": None, "auth-extra-groups": None})).groups == (
        "system:bootstrappers",
        "system:authenticated",
    )


BAD = [
    ({"expiration": timestamp(NOW - 1)}, "it expired at"),
    ({"expiration": timestamp(NOW)}, "it expired at"),
    ({"expiration": "tomorrow"}, "is no time"),
    ({"usage-bootstrap-authentication": "false"}, "usage-bootstrap-authentication is not true"),
    ({"usage-bootstrap-authentication": None}, "usage-bootstrap-authentication is not true"),
    ({"token-id": "zzzzzz"}, "its token-id is another"),
    ({"auth-extra-groups": "system:masters"}, "has 'system:masters'"),
    ({"auth-extra-groups": "system:bootstrappers:a,system:nodes"}, "has 'system:nodes'"),
    ({"token-secret": "fedcba9876543210"}, ""),
    ({"token-secret": None}, ""),
]


@pytest.mark.parametrize(("change", "why"), BAD)
async def test_what_is_refused_and_why(change, why, caplog):
    caplog.set_level("INFO")
    assert await user({**GOOD, **change}) is None
    assert why in caplog.text and "0123456789abcdef" not in caplog.text


@pytest.mark.parametrize(
    "token", ["", "abcdef", "abcdef.", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdeff", "../../a.0123456789abcdef", f"{TOKEN}\n"]
)  # fmt: skip
async def test_what_is_no_token(token):
    assert await user(GOOD, token) is None


async def test_another_type_or_one_that_is_being_deleted():
    assert await user(GOOD, type="Opaque") is None
    assert await user(GOOD, metadata={"name": "x", "deletionTimestamp": timestamp(NOW)}) is None
