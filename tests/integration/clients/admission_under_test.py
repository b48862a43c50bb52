"""A kopf operator with admission handlers, which serves and registers its webhooks itself."""

from __future__ import annotations

import os
from typing import Any

import kopf


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.admission.managed = "kopf.example.dev"
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        host="127.0.0.1",
        certfile=os.environ["HOOK_CERT"],
        pkeyfile=os.environ["HOOK_KEY"],
        cafile=os.environ["HOOK_CA"],
    )


@kopf.on.validate("", "v1", "configmaps", labels={"checked": "yes"})
def check(
    body: kopf.Body, warnings: list[str], operation: str, userinfo: dict[str, Any], dryrun: bool, **_: Any
) -> None:
    size = dict(body).get("data", {}).get("size", "")
    if operation in ("CREATE", "UPDATE") and not size.isdigit():
        raise kopf.AdmissionError(f"{size!r} is no size, {userinfo['username']}", code=422)
    warnings.append(f"{operation} of size {size}{' in a dry run' if dryrun else ''}")


@kopf.on.mutate("", "v1", "configmaps", operations=["CREATE"], labels={"checked": "yes"})
def complete(patch: kopf.Patch, body: kopf.Body, **_: Any) -> None:
    if not dict(body).get("data"):
        patch["data"] = {"size": "3"}
    patch.metadata.annotations["completed-by"] = "kopf"
