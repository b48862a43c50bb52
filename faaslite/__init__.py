"""The function platform: Function models, controllers, packaging, launch. Speaks only the Kubernetes API to the core.

What a function's file imports (`from faaslite import function, Secret, Cron`) is here too, see `faaslite.sdk`.
"""

from faaslite.sdk import CallFailed, CloudEvent, Context, Cron, Event, Secret, function, remote

__all__ = ["CallFailed", "CloudEvent", "Context", "Cron", "Event", "Secret", "function", "remote"]
