"""What is left of Pods that are gone, and what is only just there."""

from __future__ import annotations

from pathlib import Path

from core.node.housekeeping import sweep
from core.node.runtime.base import SandboxInfo, SandboxSpec
from core.node.runtime.fake import FakeRuntime
from core.node.volumes.manager import Volumes


async def test_what_is_made_while_it_looks_is_nobodys_orphan(tmp_path: Path) -> None:
    known = {"before"}

    def spec(uid: str) -> SandboxSpec:
        return SandboxSpec(uid, uid, "default", str(tmp_path / uid))

    class Busy(FakeRuntime):
        """A Pod comes, and gets its sandbox and its folder, while the list is on its way."""

        async def list(self) -> list[SandboxInfo]:
            known.add("meanwhile")
            await self.create_sandbox(spec("meanwhile"))
            (tmp_path / "pods" / "meanwhile").mkdir()
            return await super().list()

    runtime = Busy()
    await runtime.start()
    for each in ("before", "gone"):
        await runtime.create_sandbox(spec(each))
        (tmp_path / "pods" / each).mkdir(parents=True)
    volumes = Volumes(tmp_path / "pods", None)  # type: ignore[arg-type] # nothing is prepared
    assert await sweep(runtime, volumes, lambda: set(known)) == ["gone"]
    assert sorted(each.uid for each in await FakeRuntime.list(runtime)) == ["before", "meanwhile"]
    assert sorted(each.name for each in (tmp_path / "pods").iterdir()) == ["before", "meanwhile"]
    await runtime.close()
