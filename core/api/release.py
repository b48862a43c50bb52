"""Which Kubernetes this is: the release whose kinds and fields are served, and that `/version` and the nodes tell.

`core/apiserver/data/schema.json.gz` is of this release; docs/decisions/0050 says what that means.
"""

from __future__ import annotations

__all__ = ["GIT_VERSION", "MAJOR", "MINOR"]

MAJOR, MINOR = "1", "37"
GIT_VERSION = f"v{MAJOR}.{MINOR}.0+faaslite"
