"""Which Kubernetes this is to clients: the release that `/version` and the nodes tell.

The kinds and fields (`core/apiserver/data/schema.json.gz`) are of a release somewhat newer; docs/decisions/0050 says why.
"""

from __future__ import annotations

__all__ = ["GIT_VERSION", "MAJOR", "MINOR"]

MAJOR, MINOR = "1", "35"
GIT_VERSION = f"v{MAJOR}.{MINOR}.0+faaslite"
