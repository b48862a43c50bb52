"""Client certificates from the request to the first call with them: over TLS, with the real kubectl as the approver."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from contextlib import aclosing
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from core.api.kinds import CERTIFICATE_SIGNING_REQUEST, CLUSTER_ROLE, CLUSTER_ROLE_BINDING
from core.client.kubeconfig import KubeconfigError, read_kubeconfig
from core.client.rest import Client
from core.controllers.signing import CLIENT, KUBELET_CLIENT, KUBELET_SERVING, issue
from core.errors import Forbidden, Invalid, NotFound, Unauthorized
from faaslite.launch.pki import Pki

CSR = CERTIFICATE_SIGNING_REQUEST
BOTH = ["digital signature", "key encipherment"]


def asking(
    key: Any, name: str, common_name: str, *organizations: str, signer: str = CLIENT, usages: Any = None, **spec: Any
) -> Any:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in organizations]
    subject.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if sans := spec.pop("sans", None):
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(each) for each in sans]), critical=False
        )
    asked = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    usages = usages or [*BOTH, "client auth"]
    spec = {"request": base64.b64encode(asked).decode(), "signerName": signer, "usages": usages, **spec}
    return {"metadata": {"name": name}, "spec": spec}


async def until(client: Client, name: str, holds: Any) -> Any:
    """The request once that holds of it: told by a watch."""
    async with asyncio.timeout(10):
        found = await client.get(CSR, name, "")
        while not holds(found):
            version = found["metadata"]["resourceVersion"]
            watch = client.watch(CSR, "", version=version, fields=f"metadata.name={name}", seconds=10)
            async with aclosing(watch) as events:
                found = json.loads((await anext(events))[-1].object)
        return found


async def until_gone(client: Client, name: str) -> None:
    """Have the controller look at it again, by a change, and wait for what it does."""
    changed = await client.patch(CSR, name, "", {"metadata": {"annotations": {"look": str(next(NUMBERS))}}})
    version = changed["metadata"]["resourceVersion"]
    watch = client.watch(CSR, "", version=version, fields=f"metadata.name={name}", seconds=10)
    async with asyncio.timeout(10), aclosing(watch) as events:
        async for batch in events:
            if any(each.type == "DELETED" for each in batch):
                break
    with pytest.raises(NotFound):
        await client.get(CSR, name, "")


def condition(document: Any, type_: str) -> Any:
    return next((each for each in document["status"].get("conditions", ()) if each["type"] == type_), None)


def issued(document: Any) -> bool:
    return bool(document.get("status", {}).get("certificate"))


async def kubectl(plane: Any, tmp_path: Path, *words: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "kubectl", "--server", plane.url, "--certificate-authority", str(plane.pki.ca_file), "--token", "admin-token", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={"HOME": str(tmp_path), "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def grant(admin: Client, user: str, rule: Any) -> None:
    name = f"{user}-{next(NUMBERS)}"
    await admin.create(CLUSTER_ROLE, {"metadata": {"name": name}, "rules": [rule]})
    subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": name}, "roleRef": {"kind": "ClusterRole", "name": name}, "subjects": [subject]}
    await admin.create(CLUSTER_ROLE_BINDING, binding)


NUMBERS = itertools.count()
CREATE = {
    "verbs": ["create", "get", "watch"],
    "apiGroups": ["certificates.k8s.io"],
    "resources": ["certificatesigningrequests"],
}
UPDATE = {
    "verbs": ["update"],
    "apiGroups": ["certificates.k8s.io"],
    "resources": ["certificatesigningrequests/approval", "certificatesigningrequests/status"],
}


async def test_a_user_gets_a_certificate_and_is_that_user(plane: Any, tmp_path: Path) -> None:
    admin, ann = plane.client("admin-token"), plane.client("ann-token")
    await grant(admin, "ann", CREATE)
    key = ec.generate_private_key(ec.SECP256R1())
    spoofed = {"username": "admin", "groups": ["system:masters"], "uid": "x"}
    made = await ann.create(CSR, asking(key, "ann", "ann", "dev", "ops", expirationSeconds=3600, **spoofed))
    assert made["spec"]["username"] == "ann" and made["spec"]["uid"] == "u-ann"
    assert made["spec"]["groups"] == ["dev", "system:authenticated"], "who asks is told by the server"
    assert "Pending" in await kubectl(plane, tmp_path, "get", "csr", "ann")
    assert "approved" in await kubectl(plane, tmp_path, "certificate", "approve", "ann")
    found = await until(admin, "ann", issued)
    assert condition(found, "Approved")["reason"] == "KubectlApprove"
    certificate = base64.b64decode(found["status"]["certificate"]).decode()
    life = x509.load_pem_x509_certificate(certificate.encode())
    assert life.not_valid_after_utc.timestamp() == pytest.approx(plane.now[0] + 3600, abs=2)
    mine = plane.client(certificate=certificate, key=key, folder=tmp_path)
    me = json.loads(await mine.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", None, b"{}"))[
        "status"
    ]["userInfo"]
    assert me["username"] == "ann" and me["groups"] == ["dev", "ops", "system:authenticated"]
    assert (await mine.get(CSR, "ann", ""))["metadata"]["name"] == "ann", "what ann's name may do"
    assert "Approved,Issued" in await kubectl(plane, tmp_path, "get", "csr", "ann")


async def test_denied_and_failed_are_not_signed(plane: Any, tmp_path: Path) -> None:
    admin, key = plane.client("admin-token"), ec.generate_private_key(ec.SECP256R1())
    await admin.create(CSR, asking(key, "no", "ann"))
    assert "denied" in await kubectl(plane, tmp_path, "certificate", "deny", "no")
    with pytest.raises(Exception, match="may not be removed|mutually exclusive"):
        document = await admin.get(CSR, "no", "")
        document["status"]["conditions"] = [{"type": "Approved", "status": "True"}]
        await admin.update(CSR, document, subresource="approval")
    await admin.create(CSR, asking(key, "bad", "ann", usages=["client auth", "server auth"]))
    await kubectl(plane, tmp_path, "certificate", "approve", "bad")
    found = await until(admin, "bad", lambda each: condition(each, "Failed"))
    assert condition(found, "Failed")["reason"] == "SignerValidationFailure"
    assert "forbidden entries: server auth" in condition(found, "Failed")["message"]
    await admin.create(CSR, asking(key, "other", "ann", signer="example.com/mine"))
    await kubectl(plane, tmp_path, "certificate", "approve", "other")
    for name in ("no", "bad", "other"):
        assert not issued(await admin.get(CSR, name, ""))


async def test_who_may_approve_and_sign(plane: Any) -> None:
    admin, ann = plane.client("admin-token"), plane.client("ann-token")
    key = ec.generate_private_key(ec.SECP256R1())
    await grant(admin, "ann", CREATE)
    await grant(admin, "ann", UPDATE)
    made = await admin.create(CSR, asking(key, "x", "eve", signer="example.com/mine"))
    approved = {**made, "status": {"conditions": [{"type": "Approved", "status": "True", "reason": "x"}]}}
    with pytest.raises(Forbidden, match='user not permitted to approve requests with signerName "example.com/mine"'):
        await ann.update(CSR, approved, subresource="approval")
    signed = issue(
        plane.pki.authority(),
        x509.load_pem_x509_csr(base64.b64decode(made["spec"]["request"])),
        ["client auth"],
        600,
        plane.now[0],
    )
    status = {"certificate": base64.b64encode(signed.encode()).decode()}
    with pytest.raises(Forbidden, match='user not permitted to sign requests with signerName "example.com/mine"'):
        await ann.update(CSR, {**made, "status": status}, subresource="status")
    signers = {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"]}
    await grant(admin, "ann", {**signers, "verbs": ["approve"], "resourceNames": ["example.com/*"]})
    await grant(admin, "ann", {**signers, "verbs": ["sign"], "resourceNames": ["example.com/mine"]})
    await ann.update(CSR, approved, subresource="approval")
    current = await ann.get(CSR, "x", "")
    current["status"] |= status
    current = await ann.update(CSR, current, subresource="status")
    current["status"]["certificate"] = base64.b64encode(plane.pki.ca_file.read_bytes()).decode()
    with pytest.raises(Invalid, match="immutable once set"):
        await ann.update(CSR, current, subresource="status")


async def test_bad_requests(plane: Any) -> None:
    admin, node = plane.client("admin-token"), plane.client("node-token")
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(Invalid, match="less than 600 seconds"):
        await admin.create(CSR, asking(key, "a", "ann", expirationSeconds=60))
    with pytest.raises(Invalid, match='Unsupported value: "flying"'):
        await admin.create(CSR, asking(key, "a", "ann", usages=["flying"]))
    with pytest.raises(Forbidden, match="system:masters group is not allowed"):
        await admin.create(CSR, asking(key, "a", "ann", "system:masters"))
    for common_name, signer in (("system:node:n2", KUBELET_CLIENT), ("ann", CLIENT)):
        with pytest.raises(Forbidden, match="can only create a node CSR with CN=system:node:n1"):
            await node.create(CSR, asking(key, "a", common_name, "system:nodes", signer=signer))


async def test_a_node_renews_its_own_and_only_that(plane: Any, tmp_path: Path) -> None:
    admin, node = plane.client("admin-token"), plane.client("node-token")
    key = ec.generate_private_key(ec.SECP256R1())
    await node.create(CSR, asking(key, "mine", "system:node:n1", "system:nodes", signer=KUBELET_CLIENT))
    found = await until(node, "mine", issued)
    assert condition(found, "Approved")["reason"] == "AutoApproved"
    assert (
        condition(found, "Approved")["message"]
        == "Auto approving self kubelet client certificate after SubjectAccessReview."
    )
    usages = [*BOTH, "server auth"]
    serving = asking(key, "serve", "system:node:n1", "system:nodes", signer=KUBELET_SERVING, usages=usages, sans=["n1"])
    await node.create(CSR, serving)
    await admin.create(CSR, asking(key, "theirs", "system:node:n2", "system:nodes", signer=KUBELET_CLIENT))
    certificate = base64.b64decode(found["status"]["certificate"]).decode()
    renewed = plane.client(certificate=certificate, key=key, folder=tmp_path)
    await renewed.create(CSR, asking(key, "again", "system:node:n1", "system:nodes", signer=KUBELET_CLIENT))
    await until(renewed, "again", issued)
    assert not (await admin.get(CSR, "serve", "")).get("status", {}).get("conditions"), (
        "serving certificates wait for somebody"
    )
    await kubectl(plane, tmp_path, "certificate", "approve", "serve")
    await until(admin, "serve", issued)


async def test_certificates_that_are_worth_nothing(plane: Any, tmp_path: Path) -> None:
    """Of another CA, expired, for servers: TLS refuses them. Without a common name: nobody's."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder()
    named = builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])).sign(key, hashes.SHA256())
    nameless = builder.subject_name(x509.Name([])).sign(key, hashes.SHA256())
    ours, now = plane.pki.authority(), plane.now[0]
    other = Pki(tmp_path / "other")
    (tmp_path / "other").mkdir()
    other.prepare(["127.0.0.1"], [])
    year = timedelta(days=400).total_seconds()
    for refused in (
        issue(other.authority(), named, ["client auth"], None, now),
        issue(ours, named, ["client auth"], 600, now - year),
        issue(ours, named, ["client auth"], 600, now + year),
        issue(ours, named, ["server auth"], None, now),
    ):
        with pytest.raises(Exception, match="no answer|alert|certificate"):
            await plane.client(certificate=refused, key=key, folder=tmp_path).request("GET", "/version")
    nobody = plane.client(certificate=issue(ours, nameless, ["client auth"], None, now), key=key, folder=tmp_path)
    with pytest.raises(Unauthorized):
        await nobody.request("GET", "/version")


@pytest.mark.parametrize(("shift", "why"), [(-86400, "expired on"), (86400, "is this machine's clock right?")])
async def test_what_a_client_says_of_its_own_certificate(plane: Any, tmp_path: Path, shift: int, why: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    certificate = issue(plane.pki.authority(), asked, ["client auth"], 600, plane.now[0] + shift)
    (tmp_path / "mine.pem").write_bytes(certificate.encode() + plane.pem(key))
    user = {"client-certificate": "mine.pem", "client-key": "mine.pem"}
    cluster = {"server": plane.url, "certificate-authority": str(plane.pki.ca_file)}
    config = {
        "current-context": "c", "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    file = tmp_path / "config"
    file.write_text(json.dumps(config))
    with pytest.raises(KubeconfigError, match="the client certificate of .*config") as refused:
        read_kubeconfig(file)
    assert why in str(refused.value) and "\n" not in str(refused.value)


async def test_a_connection_outlives_its_certificate(plane: Any, tmp_path: Path, monkeypatch: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ann")])
    )
    certificate = issue(plane.pki.authority(), asked.sign(key, hashes.SHA256()), ["client auth"], 600, plane.now[0])
    ann = plane.client(certificate=certificate, key=key, folder=tmp_path)
    await ann.request("GET", "/version")
    monkeypatch.setattr("core.apiserver.authn.wall", lambda: plane.now[0] + 601)
    with pytest.raises(Unauthorized):
        await ann.request("GET", "/version")


async def test_a_token_still_counts_without_a_certificate_and_anonymous_stays_so(plane: Any) -> None:
    async with aiohttp.ClientSession(plane.url, connector=aiohttp.TCPConnector(ssl=plane.context())) as session:
        async with session.get("/version") as reply:
            assert reply.status == 200
        async with session.get("/api/v1/pods") as reply:
            assert reply.status == 403 and "system:anonymous" in await reply.text()
        async with session.get("/api/v1/pods", headers={"Authorization": "Bearer admin-token"}) as reply:
            assert reply.status == 200


async def test_old_requests_are_taken_away(plane: Any, tmp_path: Path) -> None:
    admin, key = plane.client("admin-token"), ec.generate_private_key(ec.SECP256R1())
    await admin.create(CSR, asking(key, "waits", "ann"))
    await admin.create(CSR, asking(key, "done", "ann"))
    await kubectl(plane, tmp_path, "certificate", "approve", "done")
    await until(admin, "done", issued)
    plane.now[0] += 3700
    await admin.patch(CSR, "waits", "", {"metadata": {"labels": {"look": "1"}}})
    await until_gone(admin, "done")
    assert await admin.get(CSR, "waits", "")
    plane.now[0] += 24 * 3600
    await until_gone(admin, "waits")
