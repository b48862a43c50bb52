"""The name by which a node's own server is known."""

from __future__ import annotations

__all__ = ["serving_name"]

_DOMAIN = "nodes.faaslite.internal"


def serving_name(node: str) -> str:
    """What the API server looks for in the certificate of a node's agent: a name that nothing else is ever reached by, so that a certificate for
    it is good for nothing else, wherever the node says it listens."""
    return f"{node}.{_DOMAIN}"
