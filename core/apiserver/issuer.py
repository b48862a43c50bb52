"""The cluster as the issuer of its ServiceAccounts' tokens: what others verify them with (OpenID Connect Discovery 1.0, RFC 7517).

After https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery.
"""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.apiserver.authn.tokens import AUDIENCE, ServiceAccountTokens

__all__ = ["CONFIGURATION", "KEYS", "issuer_routes"]

CONFIGURATION = "/.well-known/openid-configuration"
KEYS = "/openid/v1/jwks"
_FRESH = {"Cache-Control": "public, max-age=3600"}


def issuer_routes(accounts: ServiceAccountTokens, advertise: tuple[str, int] | None) -> list[Route]:
    """`advertise` is where the API is reached; None: by the issuer's own name."""
    where = f"https://{_host(advertise[0])}:{advertise[1]}" if advertise else AUDIENCE
    configuration: dict[str, Any] = {
        "issuer": AUDIENCE,
        "jwks_uri": where + KEYS,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }
    pages = {
        CONFIGURATION: (configuration, "application/json"),
        KEYS: ({"keys": accounts.public_keys()}, "application/jwk-set+json"),
    }

    def page(document: Any, media_type: str) -> Any:
        body = msgspec.json.encode(document)

        async def answer(request: Request) -> Response:
            return Response(body, media_type=media_type, headers=_FRESH)

        return answer

    return [Route(path, page(*each)) for path, each in pages.items()]


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
