"""The smallest useful function: it greets whoever calls, and says who answered."""

import os
import socket
import time

STARTED = time.time()


def handle(event, context):
    pause = float(event.query.get("pause", 0))
    if pause:
        time.sleep(min(pause, 5.0))
    name = event.query.get("name") or event.text.strip() or "world"
    context.logger.info("greeting %s", name)
    return {
        "message": f"Hello, {name}!",
        "revision": context.revision,
        "instance": f"{socket.gethostname()}/{os.getpid()}",
        "age": round(time.time() - STARTED, 3),
    }
