"""Messages between a node agent's driver and the sandboxer, over a Unix socket.

Each is a length (4 bytes, network order) and a MessagePack document. A driver sends `Call`s, as many as it likes at once; each gets its
`Reply`, in any order; `Pushed` events come in between, to every driver connected.

A process's streams have a connection of their own: the driver's one call on it is `open_exec` or `attach`, whose reply comes with descriptors
(`text` names them, in their order: `terminal`, `stdin`, `stdout`, `stderr`), so that nothing of the streams goes through the sandboxer. A second
reply with the same id brings the exit code. `end_input` may be called in between; the end of the connection is the end of the interest.
"""

from __future__ import annotations

import msgspec

from core.node.runtime.base import ContainerSpec, RuntimeEvent, SandboxInfo, SandboxSpec, Stats

__all__ = ["MAX_FRAME", "Call", "Message", "Pushed", "Reply", "decode_call", "decode_message", "frame", "frames"]

MAX_FRAME = 16 << 20


class Call(msgspec.Struct, omit_defaults=True):
    """`op` names a method of `service.Service`; the rest are its arguments, as far as it has them."""

    id: int
    op: str
    target: str = ""
    sandbox: SandboxSpec | None = None
    containers: list[ContainerSpec] = []
    seconds: float = 0.0
    command: list[str] = []
    stdin: bool = False
    tty: bool = False


class Reply(msgspec.Struct, tag="reply", omit_defaults=True):
    """`error` is the `reason` of a `RuntimeFailure`, "" for success."""

    id: int
    error: str = ""
    message: str = ""
    sandboxes: list[SandboxInfo] = []
    text: str = ""
    code: int = 0
    output: bytes = b""
    stats: Stats | None = None
    isolation: list[str] = []


class Pushed(msgspec.Struct, tag="event"):
    event: RuntimeEvent


Message = Reply | Pushed
_encoder = msgspec.msgpack.Encoder()
_calls: msgspec.msgpack.Decoder[Call] = msgspec.msgpack.Decoder(Call)
_messages: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
decode_call = _calls.decode
decode_message = _messages.decode


def frame(message: Call | Message) -> bytes:
    """The message as it goes over the wire."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def frames(buffer: bytearray) -> list[bytes]:
    """Take the whole messages off `buffer`. ValueError for one that is too long: the stream is not ours."""
    found: list[bytes] = []
    start = 0
    while len(buffer) - start >= 4:
        length = int.from_bytes(buffer[start : start + 4], "big")
        if length > MAX_FRAME:
            raise ValueError(f"a message of {length} bytes")
        if len(buffer) - start - 4 < length:
            break
        found.append(bytes(buffer[start + 4 : start + 4 + length]))
        start += 4 + length
    del buffer[:start]
    return found
