"""Whether a container's image is on the node: looked for, pulled as its policy says."""

from __future__ import annotations

from core.api import views
from core.clock import wall
from core.node.backoff import pull_delay
from core.node.lifecycle import Waiting
from core.node.runtime.base import ImageNotFound, ImagePullError, Runtime

__all__ = ["SHOWN_AS_ERROR", "ensure_image", "show_backoff"]

SHOWN_AS_ERROR = 2.0
"""Seconds that a failed pull is shown as ErrImagePull, before ImagePullBackOff."""


async def ensure_image(runtime: Runtime, container: views.Container, before: Waiting | None) -> Waiting | None:
    """None once the image is there, else what the container waits for; `before` is what it waited for until now.

    Raises what else the runtime does.
    """
    image, policy = container.image, container.image_pull_policy
    try:
        if policy != "Always" and await runtime.find_image(image) is not None:
            return None
        if policy == "Never":
            raise ImageNotFound(f'container image "{image}" is not present with pull policy of Never')
        await runtime.pull_image(image)
    except (ImagePullError, ImageNotFound) as error:
        failures = (before.failures if before else 0) + 1
        return Waiting(error.reason, str(error), wall() + pull_delay(failures), failures)
    return None


def show_backoff(waiting: Waiting, image: str) -> None:
    """From the error itself to the wait for the next try."""
    waiting.reason, waiting.message = "ImagePullBackOff", f'Back-off pulling image "{image}": {waiting.message}'
