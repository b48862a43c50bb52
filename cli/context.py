"""Which cluster a command speaks to, and the connections to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cli.errors import CallFailed, Unreachable

if TYPE_CHECKING:
    from cli.gateway import Gateway
    from core.client.light import LightTransport
    from core.client.rest import Client

__all__ = ["Session", "connect", "gateway", "home_folder", "kubeconfig_file", "run"]

T = TypeVar("T")


def home_folder(data_dir: Path | None = None) -> Path:
    """The data dir that `--data-dir`, `$FAASLITE_HOME` or the default names."""
    return data_dir or Path(os.environ.get("FAASLITE_HOME") or Path.home() / ".faaslite")


def kubeconfig_file() -> Path:
    """`$FAASLITE_KUBECONFIG`, else the data dir's, else `$KUBECONFIG`, else `~/.kube/config`. Raises Unreachable where there is none."""
    if named := os.environ.get("FAASLITE_KUBECONFIG"):
        return Path(named)
    own = home_folder() / "kubeconfig"
    if own.exists():
        return own
    if found := os.environ.get("KUBECONFIG"):
        return Path(found.split(":")[0])
    usual = Path.home() / ".kube" / "config"
    if usual.exists():
        return usual
    raise Unreachable(f"there is no cluster: {own} doesn't exist; start one with `faas up`, or set FAASLITE_KUBECONFIG")


@asynccontextmanager
async def connect(config: Path | None = None) -> AsyncIterator[tuple[Client, LightTransport]]:
    """A client of the cluster's API, and the transport under it. `config` names the kubeconfig."""
    from core.client.light import LightTransport
    from core.client.rest import Client

    file = config or kubeconfig_file()
    transport = LightTransport.from_kubeconfig(file)
    client = Client(transport)
    try:
        async with _explained(file):
            yield client, transport
    finally:
        await client.close()


@asynccontextmanager
async def _explained(file: Path) -> AsyncIterator[None]:
    """What is wrong with credentials and certificates, with the file that they are in."""
    from core.errors import ServiceUnavailable, Unauthorized

    try:
        yield
    except Unauthorized as error:
        raise CallFailed(
            f"the API refused the credentials in {file} ({error.message}): they have expired, or were taken back; get new ones with `faas login`, "
            "or `faas kubeconfig` on the cluster's machine"
        ) from error
    except ServiceUnavailable as error:
        if "certificate" not in error.message.lower():
            raise
        raise Unreachable(
            f"{error.message}; the API's certificate has expired, or is of a CA that {file} doesn't trust: get a new kubeconfig with `faas login`, "
            "or `faas kubeconfig` on the cluster's machine"
        ) from error


class Session:
    """Several questions over one connection, which is made with the first. For commands that ask now and then, on the main thread."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._file: Path | None = None
        self._client: Client | None = None
        self._transport: LightTransport | None = None

    def run(self, work: Callable[[Client, LightTransport], Awaitable[T]]) -> T:
        """Do something with a client, and the transport under it; what came of it. Raises as `connect` does."""

        async def main() -> T:
            if self._file is None or self._client is None or self._transport is None:
                from core.client.light import LightTransport
                from core.client.rest import Client

                self._file = kubeconfig_file()
                self._transport = LightTransport.from_kubeconfig(self._file)
                self._client = Client(self._transport)
            async with _explained(self._file):
                return await work(self._client, self._transport)

        return self._runner.run(main())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._runner.run(self._client.close())
        self._runner.close()


def run(work: Callable[[Client], Awaitable[T]], config: Path | None = None) -> T:
    """Do something with a client and return what came of it. `config` names the kubeconfig."""

    async def main() -> T:
        async with connect(config) as (client, _):
            return await work(client)

    return asyncio.run(main())


def gateway() -> Gateway:
    """The cluster's gateway: `$FAASLITE_GATEWAY`, else what the kubeconfig says of it, else where the data dir's cluster listens."""
    from cli.gateway import Gateway
    from cli.kubeconfigs import authority_of, gateway_of

    document = _kubeconfig()
    if named := os.environ.get("FAASLITE_GATEWAY"):
        return Gateway(named, token=_token(document))
    if announced := gateway_of(document):
        return Gateway(announced, token=_token(document), ca=authority_of(document))
    from faaslite.launch.home import Home
    from faaslite.launch.settings import ClusterSettings

    home = Home(home_folder())
    settings = ClusterSettings.load(home.settings)
    if settings is None:
        raise Unreachable(f"there is no cluster in {home.path}; start one with `faas up`, or set FAASLITE_GATEWAY")
    authority = home.pki / "ca.crt" if settings.gateway_tls and not settings.gateway_cert else None
    return Gateway(settings.gateway_url, token=_token(document), authority=authority)


def _kubeconfig() -> dict[str, Any]:
    """The kubeconfig's document. Raises Unreachable."""
    from core.client.kubeconfig import KubeconfigError, load

    file = kubeconfig_file()
    try:
        return load(file)
    except KubeconfigError as error:
        raise Unreachable(str(error)) from error


def _token(document: dict[str, Any]) -> str:
    """The kubeconfig's bearer token, "" where it has none. Raises Unreachable."""
    try:
        users = {each["name"]: each["user"] for each in document["users"]}
        contexts = {each["name"]: each["context"] for each in document["contexts"]}
        return str(users[contexts[document["current-context"]]["user"]].get("token", ""))
    except (KeyError, TypeError) as error:
        raise Unreachable(f"the kubeconfig {kubeconfig_file()} can't be read: {error}") from error
