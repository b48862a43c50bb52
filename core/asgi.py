"""What an ASGI application and `core.serving` say to each other besides ASGI: keys of a request's scope."""

from __future__ import annotations

__all__ = ["GONE", "HOLD"]

HOLD = "faaslite.hold"
"""Set by the application: the connection isn't to be read for so many seconds after the reply."""
GONE = "faaslite.gone"
"""Set by the application while it waits: what is to be called where the connection ends."""
