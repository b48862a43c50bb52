"""`faas login`: a context of the kubeconfig, from a URL, a token and what says that the server is the right one."""

from __future__ import annotations

import asyncio
import getpass
import os
import ssl
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from cli.errors import CliError, Unreachable, Usage
from cli.options import Namespace
from cli.output import echo, note
from core.api.meta import Document

if TYPE_CHECKING:
    from core.client.rest import Client

__all__ = ["digest_of", "fetched_authority", "read_authority", "register", "server_url"]

_LONGEST = 64 << 10


def register(root: typer.Typer) -> None:
    root.command()(login)


def login(
    server: Annotated[str, typer.Argument(help="The API's URL, such as https://faas.example.com:6443.")],
    ca_file: Annotated[Path | None, typer.Option(help="The cluster's CA certificate (PEM).")] = None,
    fingerprint: Annotated[
        str, typer.Option(help="sha256:HEX of the CA's key, as `faas kubeconfig --fingerprint` prints it.")
    ] = "",
    context: Annotated[str, typer.Option(help="What the context is called.", show_default="the host")] = "",
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="The file [default: $FAASLITE_KUBECONFIG, $KUBECONFIG or ~/.kube/config].", show_default=False
        ),
    ] = None,
    gateway: Annotated[str, typer.Option(help="The gateway's URL.", show_default="as the cluster says")] = "",
    namespace: Namespace = "default",
) -> None:
    """Log in to a cluster. The token is read from standard input (`faas login URL < token`), at a terminal without showing it."""
    from cli import kubeconfigs

    url = server_url(server)
    if ca_file is not None and fingerprint:
        raise Usage("give --ca-file or --fingerprint, not both")
    authority = read_authority(ca_file) if ca_file is not None else None
    token = _token()
    if fingerprint:
        authority = asyncio.run(fetched_authority(url, digest_of(fingerprint, "--fingerprint")))
    user, announced = asyncio.run(_who(url, authority, token))
    name = context or (urlsplit(url).hostname or "faaslite")
    made = kubeconfigs.context_document(name, url, authority, token, namespace, gateway or announced)
    path = kubeconfig or _default_file()
    kubeconfigs.write(path, kubeconfigs.joined(_old(path), made))
    echo(f"logged in to {url} as {user['username']}; it is the context {name} of {path}")
    if os.environ.get("FAASLITE_KUBECONFIG") != str(path):
        note(f"`export FAASLITE_KUBECONFIG={path}` makes faas use it, wherever else there is a cluster")


def server_url(text: str) -> str:
    """`https://HOST:PORT`. Raises Usage."""
    parts = urlsplit(text if "://" in text else f"https://{text}")
    if parts.scheme != "https" or not parts.hostname or parts.path.strip("/"):
        raise Usage(
            f"{text!r} is not the URL of an API: write it like https://HOST:6443 (a token never goes over plain HTTP)"
        )
    return f"https://{parts.netloc}"


def digest_of(text: str, option: str) -> str:
    """`sha256:HEX`. Raises Usage."""
    digest = text.lower().removeprefix("sha256:")
    if len(digest) != 64 or any(each not in "0123456789abcdef" for each in digest):
        raise Usage(f"{option} {text!r} is not sha256: and 64 hex digits")
    return f"sha256:{digest}"


def read_authority(path: Path) -> bytes:
    """A CA's certificate in PEM form. Raises Usage."""
    from cli.kubeconfigs import fingerprint

    try:
        data = path.read_bytes()
        fingerprint(data)
    except OSError as error:
        raise Usage(f"--ca-file {path}: {error.strerror}") from error
    except ValueError as error:
        raise Usage(f"--ca-file {path} is no certificate in PEM form") from error
    return data


def _token() -> str:
    found = getpass.getpass("Token: ") if sys.stdin.isatty() else sys.stdin.read(_LONGEST)
    token = found.strip()
    if not token or any(each.isspace() or not each.isascii() for each in token):
        raise Usage("a token is expected on standard input, and nothing else: faas login URL < FILE")
    return token


def _default_file() -> Path:
    for variable in ("FAASLITE_KUBECONFIG", "KUBECONFIG"):
        if named := os.environ.get(variable, "").split(":")[0]:
            return Path(named)
    return Path.home() / ".kube" / "config"


def _old(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise CliError(f"{path} can't be read, and is left as it is: {' '.join(str(error).split())}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CliError(f"{path} is not a kubeconfig, and is left as it is")
    return found


async def fetched_authority(url: str, wanted: str) -> bytes:
    """The CA that the server gives to anybody, where its key is the one that is wanted. Nothing is sent that must be kept secret."""
    from cli.kubeconfigs import fingerprint
    from core.client.kubeconfig import client_context

    found = await _cluster_info(url, client_context(verify=False), "")
    ca = str((found.get("data") or {}).get("ca.crt", "")).encode()
    try:
        has = fingerprint(ca)
    except ValueError as error:
        raise CliError(f"{url} doesn't say what its CA is; use --ca-file") from error
    if has != wanted:
        raise CliError(
            f"the CA of {url} has the fingerprint {has}, not {wanted}: this is not the cluster that you mean, or its CA was made anew"
        )
    return ca


async def _cluster_info(url: str, context: ssl.SSLContext, token: str) -> Document:
    from core.api.kinds import CONFIG_MAP
    from core.errors import ApiError

    async def get(client: Client) -> Document:
        try:
            return await client.get(CONFIG_MAP, "cluster-info", "kube-public")
        except ApiError as error:
            if error.code in (401, 403, 404):
                return {}
            raise

    return await _with_client(url, context, token, get)


async def _who(url: str, authority: bytes | None, token: str) -> tuple[dict[str, Any], str]:
    """Whose token it is, and where the gateway is."""
    from core.api.kinds import SELF_SUBJECT_REVIEW
    from core.client.kubeconfig import client_context
    from core.errors import Unauthorized

    context = client_context(ca=authority)

    async def ask(client: Client) -> Document:
        document = {"apiVersion": SELF_SUBJECT_REVIEW.api_version, "kind": SELF_SUBJECT_REVIEW.kind}
        try:
            return await client.create(SELF_SUBJECT_REVIEW, document)
        except Unauthorized as error:
            raise CliError(
                f"{url} doesn't know the token: it has ended, was revoked, or is another cluster's"
            ) from error

    review = await _with_client(url, context, token, ask)
    info = await _cluster_info(url, context, token)
    return review["status"]["userInfo"], str((info.get("data") or {}).get("gateway", ""))


async def _with_client(url: str, context: ssl.SSLContext, token: str, work: Any) -> Document:
    from core.client.light import LightTransport
    from core.client.rest import Client
    from core.errors import ServiceUnavailable

    client = Client(LightTransport(url, token=token, ssl=context))
    try:
        found: Document = await work(client)
        return found
    except ServiceUnavailable as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error) or "certificate verify failed" in str(error):
            raise CliError(
                f"{url} shows a certificate of an authority that isn't trusted here; give --ca-file, or --fingerprint as its administrator says"
            ) from error
        raise Unreachable(f"nothing answers at {url}: {error.message}") from error
    finally:
        await client.close()
