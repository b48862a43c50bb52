"""OpenAPI v3 documents of what isn't a resource: the version, the lists of groups and versions, the issuer's pages. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.apiserver import descriptions, schema
from core.apiserver.openapi_types import Components, ref

__all__ = ["page", "pages"]

_INFO = "io.k8s.apimachinery.pkg.version.Info"
_REQUIRED = (
    "major", "minor", "gitVersion", "gitCommit", "gitTreeState", "buildDate", "goVersion", "compiler", "platform",
)  # fmt: skip
_COMPATIBILITY = ("emulationMajor", "emulationMinor", "minCompatibilityMajor", "minCompatibilityMinor")
_GROUP = "meta.v1.APIGroup"
_SINGLE = {
    "api": ("getCoreAPIVersions", "get available API versions", "meta.v1.APIVersions", "application/json"),
    "apis": ("getAPIVersions", "get available API versions", "meta.v1.APIGroupList", "application/json"),
    "version": ("getCodeVersion", "get the version information for this server", "", "application/json"),
    ".well-known/openid-configuration": (
        "getServiceAccountIssuerOpenIDConfiguration",
        "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
        None, "application/json",
    ),
    "openid/v1/jwks": (
        "getServiceAccountIssuerOpenIDKeyset",
        "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
        None, "application/jwk-set+json",
    ),
}  # fmt: skip
"""Path -> operation, description, the type of the answer ("" for the version's, None for a text), its media type."""


def pages(groups: Iterable[str]) -> list[str]:
    """Where there is such a document, as it stands in the index: `version`, `apis`, `apis/GROUP` for each group."""
    return [*_SINGLE, *(f"apis/{each}" for each in sorted(set(groups)) if each)]


def page(at: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(paths, schemas) of the document at `at`, one of `pages`."""
    components = Components(schema.load(), descriptions.read())
    operation, text, answer, media = _SINGLE.get(at) or _of_group(at.partition("/")[2])
    if answer is None:
        found: dict[str, Any] = {"type": "string"}
    elif answer == "":
        components.found[_INFO] = _version()
        found = ref(_INFO)
    else:
        found = ref(components.add_named(answer))
    slash = "" if at.startswith(".well-known") else "/"
    described = {
        "description": text,
        "operationId": operation,
        "tags": [at.split("/")[-1].partition(".")[0] or "WellKnown"],
        "responses": {
            "200": {"description": "OK", "content": {media: {"schema": found}}},
            "401": {"description": "Unauthorized"},
        },
    }
    return {f"/{at}{slash}": {"get": described}}, components.found


def _of_group(group: str) -> tuple[str, str, str, str]:
    name = "".join(part[:1].upper() + part[1:] for part in group.removesuffix(".k8s.io").split("."))
    return f"get{name}APIGroup", "get information of a group", _GROUP, "application/json"


def _version() -> dict[str, Any]:
    return {
        "description": "Info contains versioning information. how we'll want to distribute that information.",
        "type": "object",
        "required": list(_REQUIRED),
        "properties": {
            **{each: {"type": "string", "default": ""} for each in _REQUIRED},
            **{each: {"type": "string"} for each in _COMPATIBILITY},
        },
    }
