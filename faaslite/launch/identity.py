"""Which identity provider the API takes tokens of, as the cluster's settings say."""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from core.apiserver.authn.oidc import ALGORITHMS, Oidc, OidcSettings
from faaslite.launch.errors import LaunchError
from faaslite.launch.settings import ClusterSettings

__all__ = ["oidc"]


def oidc(settings: ClusterSettings) -> Oidc | None:
    """None where there is none. Raises LaunchError where the settings make no sense."""
    url = settings.oidc_issuer_url
    if not url:
        return None
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment:
        raise LaunchError(
            f"--oidc-issuer-url {url!r}: an https URL without query is needed, as the issuer says it itself"
        )
    if not settings.oidc_client_id:
        raise LaunchError("--oidc-client-id is needed with --oidc-issuer-url: the audience that tokens must have")
    required = {}
    for each in settings.oidc_required_claim:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise LaunchError(f"--oidc-required-claim {each!r}: CLAIM=VALUE is expected")
        required[name] = value
    for each in settings.oidc_signing_algs:
        if each not in ALGORITHMS:
            raise LaunchError(f"oidc_signing_algs {each!r}: there are {', '.join(ALGORITHMS)}")
    try:
        context = ssl.create_default_context(cafile=settings.oidc_ca_file or None)
    except (OSError, ssl.SSLError) as error:
        why = "no PEM certificates in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise LaunchError(f"--oidc-ca-file {settings.oidc_ca_file}: {why}") from error
    found = OidcSettings(
        url,
        settings.oidc_client_id,
        settings.oidc_username_claim,
        settings.oidc_username_prefix,
        settings.oidc_groups_claim,
        settings.oidc_groups_prefix,
        required,
        tuple(settings.oidc_signing_algs),
    )
    return Oidc(found, context)
