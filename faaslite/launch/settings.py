"""What a cluster was started with. Kept in the data dir, so that a restart is the same cluster."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from faaslite.launch.errors import LaunchError

__all__ = ["ClusterSettings", "RuntimeName"]

RuntimeName = Literal["auto", "process", "docker"]


class ClusterSettings(BaseModel):
    """One machine's cluster. A port of 0 takes a free one, which is then kept."""

    model_config = ConfigDict(extra="ignore")

    listen: str = "127.0.0.1"
    api_port: int = Field(default=6443, ge=0, le=65535)
    gateway_port: int = Field(default=8080, ge=0, le=65535)
    runtime: RuntimeName = "auto"
    nodes: int = Field(default=1, ge=1, le=64)
    workers: int = Field(default=1, ge=1, le=64)
    domain: str = Field(default="", pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*)?$")
    """Functions are also at the hosts `NAME.NAMESPACE.DOMAIN`; empty for not."""
    gateway_tls: bool = False
    """Whether the gateway speaks HTTPS: with the files below, or with a certificate of the cluster's CA."""
    gateway_cert: str = ""
    gateway_key: str = ""
    store: str = ""
    """The store's URL; empty: SQLite in the data dir."""
    slices: list[int] = Field(default_factory=list)
    """The networks of process nodes (see `slices.py`), kept where they are free."""
    redis: str = ""
    """The URL of the queue of calls (`redis://`, `rediss://` or `unix://`); empty: SQLite in the data dir."""
    audit_policy: str = ""
    """A file with the API's audit policy (`audit.k8s.io/v1`); empty: the built-in one."""
    audit_log_maxsize: int = Field(default=64, ge=1)
    """MiB at which `logs/audit.log` is set aside."""
    audit_log_maxbackup: int = Field(default=8, ge=0)
    """How many such files are kept."""
    oidc_issuer_url: str = ""
    """An identity provider whose ID tokens are taken; empty: none. The rest is as kube-apiserver's flags of these names."""
    oidc_client_id: str = ""
    oidc_username_claim: str = "sub"
    oidc_username_prefix: str | None = None
    oidc_groups_claim: str = ""
    oidc_groups_prefix: str = ""
    oidc_required_claim: list[str] = Field(default_factory=list)
    """Each `CLAIM=VALUE`."""
    oidc_ca_file: str = ""
    oidc_signing_algs: list[str] = Field(default_factory=lambda: ["RS256"])
    zygote_idle: float = Field(default=900.0, gt=0)
    """Seconds after which a zygote that nobody used is let go."""

    warm: int = Field(default=4, ge=0, le=100)
    """Started containers that a Docker node keeps waiting for each kind of Pod; 0 for none."""
    warm_memory: int = Field(default=512, ge=0)
    """MiB that all of them may take on one node."""

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        try:
            return str(ip_address(value))
        except ValueError as error:
            raise ValueError(f"{value!r} is not an IP address") from error

    @field_validator("redis")
    @classmethod
    def _redis(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError(f"{value!r} is not the URL of a Redis: redis://HOST:PORT/DB is expected")
        return value

    @property
    def api_url(self) -> str:
        return f"https://{_host(self.listen)}:{self.api_port}"

    @property
    def gateway_url(self) -> str:
        scheme = "https" if self.gateway_tls else "http"
        return f"{scheme}://{_host(self.listen)}:{self.gateway_port}"

    @classmethod
    def make(cls, **values: object) -> ClusterSettings:
        """Settings from flags; raises LaunchError with one line per flag that is wrong."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = [
                f"--{'-'.join(str(part) for part in each['loc']).replace('_', '-')}: {each['msg']}"
                for each in error.errors()
            ]
            raise LaunchError("; ".join(lines)) from error

    @classmethod
    def load(cls, path: Path) -> ClusterSettings | None:
        """What the cluster of this data dir was last started with; None where it never was."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise LaunchError(f"{path} can't be read: {error.errors()[0]['msg']}; mend or remove it") from error

    def save(self, path: Path) -> None:
        scratch = path.with_suffix(".new")
        scratch.write_text(self.model_dump_json(indent=2) + "\n")
        scratch.replace(path)


def _host(address: str) -> str:
    """The address as it stands in a URL; the wildcard is reached over loopback."""
    if address == "0.0.0.0":  # noqa: S104
        return "127.0.0.1"
    if address == "::":
        return "[::1]"
    return f"[{address}]" if ":" in address else address
