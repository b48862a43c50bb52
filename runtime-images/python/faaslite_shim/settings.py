"""What the environment says of this instance, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Settings"]


def _number(env: Mapping[str, str], name: str, default: float) -> float:
    try:
        return max(0.0, float(env.get(name) or default))
    except ValueError:
        return default


@dataclass(frozen=True, slots=True)
class Settings:
    """`timeout` in seconds (0 = none), `max_body` in bytes, `concurrency` calls at once (0 = no limit)."""

    handler: str = ""
    package: str = "/var/faaslite/package"
    layer: str = ""
    function: str = ""
    namespace: str = ""
    revision: str = ""
    concurrency: int = 0
    timeout: float = 0.0
    max_body: int = 6 << 20
    secrets: str = "/var/run/secrets/faaslite"
    termination_log: str = "/dev/termination-log"
    port: int = 8080

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Settings:
        """A number that can't be read counts as not given."""
        return cls(
            handler=env.get("FAASLITE_HANDLER", ""),
            package=env.get("FAASLITE_PACKAGE") or "/var/faaslite/package",
            layer=env.get("FAASLITE_LAYER", ""),
            function=env.get("FAASLITE_FUNCTION", ""),
            namespace=env.get("FAASLITE_NAMESPACE", ""),
            revision=env.get("FAASLITE_REVISION", ""),
            concurrency=int(_number(env, "FAASLITE_CONCURRENCY", 0)),
            timeout=_number(env, "FAASLITE_TIMEOUT", 0),
            max_body=int(_number(env, "FAASLITE_MAX_BODY", 6 << 20)),
            secrets=env.get("FAASLITE_SECRETS") or "/var/run/secrets/faaslite",
            termination_log=env.get("FAASLITE_TERMINATION_LOG") or "/dev/termination-log",
            port=int(_number(env, "PORT", 8080)),
        )
