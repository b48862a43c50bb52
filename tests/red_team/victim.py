"""The code of the team that is attacked: it has a secret, and leaves things lying about that others must not find."""

import ctypes
import os
import socket
import threading

NAME, KEY = f"faaslite-red-team-{os.urandom(4).hex()}", 0x5EC20000 + os.getpid() % 0x10000
libc = ctypes.CDLL(None, use_errno=True)
_listener = socket.socket(socket.AF_UNIX)
_listener.bind("\0" + NAME)
_listener.listen()
_segment = libc.shmget(KEY, 4096, 0o1666)
_kept = threading.Thread(target=lambda: _listener.accept(), daemon=True)
_kept.start()


def handle(event, context):
    base = os.environ["FAASLITE_SECRETS"]
    return {
        "secret": open(f"{base}/theirs/password").read(),
        "place": base,
        "package": os.environ["FAASLITE_PACKAGE"],
        "tmp": os.environ.get("TMPDIR", "/tmp"),
        "segment": _segment,
        "abstract": NAME,
        "key": KEY,
    }
