"""Run as a program and killed by the tests: writes to a store without end, and says what was handed out and acknowledged."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from core.store.sqlite import SqliteStore


async def main(path: str, life: str) -> None:
    store = SqliteStore(Path(path))
    print("open", store.revision, flush=True)

    async def write(writer: int) -> None:
        n = 0
        while True:
            n += 1
            soft = await store.create(f"/soft/{life}/{writer}/{n}", b"soft", durable=False)
            call = asyncio.ensure_future(store.create(f"/hard/{life}/{writer}/{n}", b"hard"))
            await asyncio.sleep(0)
            os.write(1, f"given {max(store.revision, soft.revision)}\n".encode())
            entry = await call
            os.write(1, f"acked {entry.key} {entry.revision}\n".encode())

    await asyncio.gather(*(write(n) for n in range(8)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
