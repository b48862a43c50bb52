"""How an answer is written for who asked: JSON in a line, JSON for people to read, or YAML. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import yaml

from core.apiserver.request import JSON, Reply

__all__ = ["YAML", "presented", "wants_yaml"]

YAML = "application/yaml"
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_BY_HAND = ("curl", "Wget", "Mozilla/5.0")
"""The starts of the User-Agents of clients behind which somebody sits."""


def wants_yaml(accept: str) -> bool:
    """Whether YAML comes before any form of JSON in an Accept header."""
    if "yaml" not in accept:
        return False
    for media in accept.split(","):
        kind = media.partition(";")[0].strip().lower()
        if kind == YAML:
            return True
        if kind in (JSON, "*/*", "application/*"):
            return False
    return False


def _pretty(query: Mapping[str, str], user_agent: str | None) -> bool:
    if "pretty" in query:
        return query["pretty"].lower() not in ("false", "0")
    return bool(user_agent) and str(user_agent).startswith(_BY_HAND)


def presented(reply: Reply, accept: str, query: Mapping[str, str], user_agent: str | None) -> Reply:
    """`reply` in YAML or with line breaks where that is asked for, else a line that ends, as Kubernetes' do; what isn't JSON stays as it is."""
    if reply.content_type != JSON or not reply.body:
        return reply
    if wants_yaml(accept):
        text = yaml.dump(msgspec.json.decode(reply.body), Dumper=_DUMPER, default_flow_style=False, allow_unicode=True)
        return reply._replace(body=text.encode(), content_type=YAML)
    if _pretty(query, user_agent):
        return reply._replace(body=msgspec.json.format(reply.body, indent=2))
    return reply._replace(body=b"%b\n" % reply.body)
