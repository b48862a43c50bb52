"""The Python shim: the server inside a Python function's container. See `runtime-images/PROTOCOL.md`.

Stands on the standard library and httptools, and uses uvloop where there is one. It imports nothing of the platform, and
user code sees neither its libraries nor the folder that it comes from.
"""
