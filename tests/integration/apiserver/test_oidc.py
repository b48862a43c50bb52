"""Users of an identity provider: a real issuer over TLS, its tokens at a real API server, and every token that is worth nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from core.apiserver.authn import issuer as module
from core.apiserver.authn.oidc import Oidc
from core.errors import ApiError, Unauthorized
from faaslite.launch.errors import LaunchError
from faaslite.launch.identity import oidc
from faaslite.launch.settings import ClusterSettings

REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


RSA = {each: rsa.generate_private_key(public_exponent=65537, key_size=2048) for each in ("k1", "k2")}


class Issuer:
    """OpenID Connect over TLS on loopback: discovery, keys, and tokens for who gives the right password. It can be made to misbehave."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        self.discovery: dict[str, Any] = {}
        self.hang = asyncio.Event()
        self.hang.set()
        self.status = 200
        self.keys: dict[str, Any] = {}
        self.rotate("k1")
        self._runner: web.AppRunner | None = None

    def rotate(self, name: str, key: Any = None) -> None:
        """Sign with a new key from now on, and show that one alone."""
        self.current = name
        self.keys = {name: key or RSA[name]}

    async def start(self, context: ssl.SSLContext) -> None:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discover)
        app.router.add_get("/keys", self._jwks)
        app.router.add_post("/token", self._token)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context).start()
        self.url = f"https://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        self.hang.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def claims(self, **more: Any) -> dict[str, Any]:
        now = int(time.time())
        found = {"iss": self.url, "aud": "faas", "sub": "ann", "groups": ["dev"], "iat": now, "exp": now + 600, **more}
        return {key: value for key, value in found.items() if value is not None}

    def sign(self, algorithm: str = "RS256", *, key: Any = None, kid: str | None = None, **claims: Any) -> str:
        headers = {"kid": self.current if kid is None else kid}
        return jwt.encode(
            self.claims(**claims), key if key is not None else self.keys[self.current], algorithm, headers
        )

    def public_pem(self) -> bytes:
        public = self.keys[self.current].public_key()
        found: bytes = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return found

    async def _discover(self, request: web.Request) -> web.Response:
        return await self._answer(request, {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery})

    async def _jwks(self, request: web.Request) -> web.Response:
        found = []
        for name, key in self.keys.items():
            elliptic = isinstance(key, ec.EllipticCurvePrivateKey)
            algorithm = jwt.algorithms.ECAlgorithm if elliptic else jwt.algorithms.RSAAlgorithm
            document = json.loads(algorithm.to_jwk(key.public_key()))
            found.append({**document, "kid": name, "use": "sig", "alg": "ES256" if elliptic else "RS256"})
        return await self._answer(request, {"keys": found})

    async def _token(self, request: web.Request) -> web.Response:
        """The password grant (RFC 6749, 4.3): what a command-line login comes to."""
        form = await request.post()
        if form.get("password") != "correct horse":
            return web.json_response({"error": "invalid_grant"}, status=400)
        return web.json_response({"id_token": self.sign(sub=str(form["username"])), "token_type": "Bearer"})

    async def _answer(self, request: web.Request, document: Any) -> web.Response:
        self.requests.append(request.path)
        await self.hang.wait()
        return web.json_response(document, status=self.status)


def tampered(token: str, **claims: Any) -> str:
    """The token with other claims under the same signature."""
    head, body, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    changed = base64.urlsafe_b64encode(json.dumps({**said, **claims}).encode()).rstrip(b"=").decode()
    return f"{head}.{changed}.{signature}"


@pytest.fixture
async def issuer(plane: Any) -> AsyncIterator[Issuer]:
    made = Issuer()
    await made.start(plane.pki.server_context("apiserver"))
    yield made
    await made.stop()


@pytest.fixture
async def use(plane: Any, issuer: Issuer) -> AsyncIterator[Any]:
    """Have the API server take the issuer's tokens, with these settings besides."""
    used: list[Oidc] = []

    def apply(**more: Any) -> Oidc:
        settings = {
            "oidc_issuer_url": issuer.url, "oidc_client_id": "faas", "oidc_groups_claim": "groups", "oidc_groups_prefix": "corp:",
            "oidc_username_prefix": "corp:", "oidc_ca_file": str(plane.pki.ca_file), **more,
        }  # fmt: skip
        made = oidc(ClusterSettings.make(**settings))
        assert made is not None
        used.append(made)
        plane.api._authenticator._oidc = made
        return made

    apply()
    yield apply
    for each in used:
        await each.close()


async def whoami(plane: Any, token: str) -> Any:
    found = json.loads(await plane.client(token).request("POST", REVIEW, None, b"{}"))
    return found["status"]["userInfo"]


async def test_a_login_and_what_it_gives(plane: Any, issuer: Issuer, use: Any) -> None:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=plane.context())) as session:
        form = {"grant_type": "password", "username": "ann", "password": "correct horse"}
        async with session.post(f"{issuer.url}/token", data=form) as reply:
            token = (await reply.json())["id_token"]
    found = await whoami(plane, token)
    assert found == {"username": "corp:ann", "groups": ["corp:dev", "system:authenticated"]}
    await whoami(plane, token)
    assert issuer.requests == ["/.well-known/openid-configuration", "/keys"], "asked once"
    admin = plane.client("admin-token")
    reviewed = json.loads(
        await admin.request(
            "POST", "/apis/authentication.k8s.io/v1/tokenreviews", None, json.dumps({"spec": {"token": token}}).encode()
        )
    )["status"]
    assert reviewed["authenticated"] and reviewed["user"]["username"] == "corp:ann", "the gateway and jobs ask so"


NAMES = [
    ({"oidc_username_prefix": None}, {}, "{issuer}#ann"),
    ({"oidc_username_prefix": "-"}, {}, "ann"),
    ({"oidc_username_prefix": None, "oidc_username_claim": "email"}, {"email": "a@b.c"}, "a@b.c"),
    ({"oidc_username_claim": "email"}, {"email": "a@b.c", "email_verified": True}, "corp:a@b.c"),
    ({"oidc_required_claim": ["hd=acme"]}, {"hd": "acme"}, "corp:ann"),
    ({}, {"groups": "one"}, "corp:ann"),
    ({}, {"groups": None}, "corp:ann"),
    ({}, {"aud": ["other", "faas"]}, "corp:ann"),
]


@pytest.mark.parametrize(("settings", "claims", "name"), NAMES)
async def test_names(plane: Any, issuer: Issuer, use: Any, settings: Any, claims: Any, name: str) -> None:
    use(**settings)
    assert (await whoami(plane, issuer.sign(**claims)))["username"] == name.format(issuer=issuer.url)


def past(issuer: Issuer) -> str:
    return issuer.sign(exp=int(time.time()) - 60)


BAD = {
    "expired": (past, "Signature has expired"),
    "wrong audience": (lambda issuer: issuer.sign(aud="other"), "Audience doesn't match"),
    "no audience": (lambda issuer: issuer.sign(aud=None), "aud"),
    "no end": (lambda issuer: issuer.sign(exp=None), "exp"),
    "not yet": (lambda issuer: issuer.sign(nbf=int(time.time()) + 300), "not yet valid"),
    "issued in the future": (lambda issuer: issuer.sign(iat=int(time.time()) + 300), "not yet valid"),
    "alg none": (lambda issuer: jwt.encode(issuer.claims(), None, "none"), "it is signed with 'none'"),
    "HS256 with the public key": (lambda issuer: confused(issuer), "it is signed with 'HS256'"),
    "RS512 though not allowed": (lambda issuer: issuer.sign("RS512"), "it is signed with 'RS512'"),
    "another's key under a known name": (
        lambda issuer: issuer.sign(key=RSA["k2"]),
        "Signature verification failed",
    ),
    "an unknown key": (lambda issuer: issuer.sign(kid="k9"), "the issuer has no key 'k9'"),
    "other claims": (lambda issuer: tampered(issuer.sign(), sub="root"), "Signature verification failed"),
    "no name": (lambda issuer: issuer.sign(sub=None), "sub"),
    "no required claim": (lambda issuer: issuer.sign(hd="other"), "its claim hd isn't 'acme'"),
    "groups that are none": (lambda issuer: issuer.sign(hd="acme", groups=[1]), "is no list of groups"),
}


def confused(issuer: Issuer) -> str:
    """What a library that trusts the header takes: the public key as the secret of an HMAC."""
    import hashlib
    import hmac

    def text(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    signed = f"{text(json.dumps({'alg': 'HS256', 'kid': issuer.current}).encode())}.{text(json.dumps(issuer.claims()).encode())}"
    return f"{signed}.{text(hmac.new(issuer.public_pem(), signed.encode(), hashlib.sha256).digest())}"


@pytest.mark.parametrize("what", BAD)
async def test_tokens_that_are_worth_nothing(plane: Any, issuer: Issuer, use: Any, what: str, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    make, why = BAD[what]
    if "claim" in what or "groups" in what:
        use(oidc_required_claim=["hd=acme"] if what != "other claims" else [])
    token = make(issuer)
    with pytest.raises(Unauthorized):
        await whoami(plane, token)
    assert why in caplog.text and token not in caplog.text


async def test_no_claim_makes_one_of_the_clusters_own(plane: Any, issuer: Issuer, use: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    use(oidc_groups_prefix="", oidc_username_prefix="-")
    for claims in ({"groups": ["system:masters"]}, {"sub": "system:node:n1"}, {"groups": "system:nodes"}):
        with pytest.raises(Unauthorized):
            await whoami(plane, issuer.sign(**claims))
    assert "is one of the cluster's own" in caplog.text


async def test_another_issuer_is_nobody(plane: Any, issuer: Issuer, use: Any) -> None:
    for token in (
        issuer.sign(iss="https://evil.example"),
        issuer.sign(iss=None),
        "a.b.c",
        "." * 3,
        "[" * 60000 + ".e30.x",
    ):
        with pytest.raises(ApiError) as refused:
            await plane.client(token).request("GET", "/version")
        assert refused.value.status_code in (400, 401, 431)
    assert issuer.requests == [], "the token of another doesn't make us ask anybody"


async def test_an_issuer_that_is_down_or_lies(plane: Any, issuer: Issuer, use: Any, caplog: Any) -> None:
    for setup, why in (
        ({"discovery": {"issuer": "https://evil.example"}}, "of the issuer 'https://evil.example'"),
        ({"discovery": {"jwks_uri": "http://127.0.0.1/keys"}}, "is no https URL"),
        ({"status": 500}, "answered 500"),
    ):
        use()
        for name, value in setup.items():
            setattr(issuer, name, value)
        with pytest.raises(Unauthorized):
            await whoami(plane, issuer.sign())
        assert why in caplog.text
        issuer.discovery, issuer.status = {}, 200
    use(oidc_ca_file="")
    with pytest.raises(Unauthorized):
        await whoami(plane, issuer.sign())
    assert "certificate verify failed" in caplog.text
    token = issuer.sign()
    await issuer.stop()
    use()
    with pytest.raises(Unauthorized):
        await whoami(plane, token)
    assert "doesn't give its keys" in caplog.text


async def test_an_issuer_that_hangs_holds_up_nobody_else(
    plane: Any, issuer: Issuer, use: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    issuer.hang.clear()
    waiting = [asyncio.create_task(whoami(plane, issuer.sign(sub=f"u{number}"))) for number in range(5)]
    async with asyncio.timeout(5):
        while not issuer.requests:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await plane.client("admin-token").request("GET", "/api/v1/namespaces")
        assert not any(each.done() for each in waiting)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(each, Unauthorized) for each in outcomes)
    assert len(issuer.requests) == 1, "one question for all of them"


async def test_keys_change_and_strangers_cannot_make_us_ask(
    plane: Any, issuer: Issuer, use: Any, monkeypatch: Any
) -> None:
    first = issuer.sign()
    await whoami(plane, first)
    for number in range(20):
        with pytest.raises(Unauthorized):
            await whoami(plane, issuer.sign(kid=f"unknown-{number}"))
    assert len(issuer.requests) == 2, "not asked again within the bound"
    monkeypatch.setattr(module, "BOUND", 0.0)
    issuer.rotate("k2")
    await whoami(plane, issuer.sign())
    assert len(issuer.requests) == 4
    with pytest.raises(Unauthorized):
        await whoami(plane, first)  # its key was taken back


async def test_elliptic_keys(plane: Any, issuer: Issuer, use: Any) -> None:
    use(oidc_signing_algs=["ES256"])
    issuer.rotate("e1", ec.generate_private_key(ec.SECP256R1()))
    assert (await whoami(plane, issuer.sign("ES256")))["username"] == "corp:ann"


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"oidc_issuer_url": "http://x", "oidc_client_id": "a"}, "an https URL without query is needed"),
        ({"oidc_issuer_url": "https://x?a=b", "oidc_client_id": "a"}, "an https URL without query is needed"),
        ({"oidc_issuer_url": "https://x"}, "--oidc-client-id is needed"),
        ({"oidc_issuer_url": "https://x", "oidc_client_id": "a", "oidc_required_claim": ["hd"]}, "CLAIM=VALUE is expected"),
        ({"oidc_issuer_url": "https://x", "oidc_client_id": "a", "oidc_signing_algs": ["HS256"]}, "there are RS256"),
        ({"oidc_issuer_url": "https://x", "oidc_client_id": "a", "oidc_ca_file": "/none.pem"}, "No such file"),
        ({"oidc_issuer_url": "https://x", "oidc_client_id": "a", "oidc_ca_file": "/etc/hostname"}, "no PEM certificates in it"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(settings: Any, why: str) -> None:
    with pytest.raises(LaunchError, match=why.replace("?", ".")) as refused:
        oidc(ClusterSettings.make(**settings))
    assert "\n" not in str(refused.value)


def test_none_is_asked_for() -> None:
    assert oidc(ClusterSettings()) is None
