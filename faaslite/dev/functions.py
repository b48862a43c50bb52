"""The functions of one path: planned as for a cluster, each with one instance, replaced when the code changes."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from faaslite.api.function import Function, validate
from faaslite.build.errors import BuildError
from faaslite.build.layer import Layer
from faaslite.build.plan import Asked, Planned, plan
from faaslite.dev.clock import Trigger
from faaslite.dev.instance import Instance

__all__ = ["Functions", "Running"]

MAX_BODY = 100 * 1024 * 1024
Say = Callable[[str, str], None]


@dataclass(slots=True)
class Running:
    """A function as it serves now; `failure` says why its newest code doesn't, "" where it does."""

    function: Function
    instance: Instance | None = None
    revision: int = 0
    failure: str = ""
    slots: asyncio.Semaphore | None = None
    triggers: list[Trigger] = field(default_factory=list)


class Functions:
    """`say(name, line)` is given what functions write ("" for what the platform says). Secrets are `{secret: {key: value}}`."""

    def __init__(self, cache: Path, scratch: Path, say: Say) -> None:
        self.table: dict[tuple[str, str], Running] = {}
        self.gateway = ""
        self._cache = cache
        self._scratch = scratch
        self._say = say
        self._lock = asyncio.Lock()

    async def load(self, path: Path, asked: Asked, secrets: Mapping[str, Mapping[str, str]], now: float) -> list[str]:
        """Plan and start what the path declares; what fails leaves what served before. The names. Raises BuildError, FunctionInvalid."""
        async with self._lock:
            planned = await asyncio.to_thread(plan, path, asked, lambda line: self._say("", line))
            folder = _folder(path)
            for each in planned:
                await self._replace(each, folder, secrets, now)
            return [each.name for each in planned]

    async def _replace(
        self, planned: Planned, folder: Path, secrets: Mapping[str, Mapping[str, str]], now: float
    ) -> None:
        function = validate(planned.document)
        key = (function.namespace, function.name)
        before = self.table.get(key)
        running = self.table.setdefault(key, Running(function))
        revision = running.revision + 1
        name = f"{function.name}-{revision:05d}"
        try:
            environment = self._environment(function, planned, folder, name, secrets)
            instance = Instance(
                function.name, function.spec.runtime, environment, lambda line: self._say(function.name, line)
            )
            await instance.start()
        except BuildError as error:
            running.failure = str(error)
            raise BuildError(
                f"{error}{f' ({function.name}-{running.revision:05d} keeps serving)' if running.instance else ''}"
            ) from error
        old, running.instance = running.instance, instance
        running.function, running.revision, running.failure = function, revision, ""
        running.slots = asyncio.Semaphore(function.spec.concurrency) if function.spec.concurrency else None
        running.triggers = _triggers(function, before.triggers if before else [], now)
        if old is not None:
            await old.stop()

    def _environment(
        self,
        function: Function,
        planned: Planned,
        folder: Path,
        revision: str,
        secrets: Mapping[str, Mapping[str, str]],
    ) -> dict[str, str]:
        spec = function.spec
        for each in spec.env:
            if each.value_from is not None:
                raise BuildError(
                    f"{function.name}: env {each.name} comes from the cluster (valueFrom); give it a value with --env"
                )
        found = {each.name: each.value for each in spec.env}
        found |= {
            "FAASLITE_FUNCTION": function.name, "FAASLITE_NAMESPACE": function.namespace, "FAASLITE_REVISION": revision,
            "FAASLITE_CONCURRENCY": str(spec.concurrency), "FAASLITE_TIMEOUT": f"{spec.timeout:g}", "FAASLITE_MAX_BODY": str(MAX_BODY),
            "FAASLITE_HANDLER": spec.handler, "FAASLITE_PACKAGE": str(folder), "FAASLITE_GATEWAY": self.gateway,
        }  # fmt: skip
        if planned.layer is not None:
            layer = self._extracted(planned.layer)
            if spec.runtime.startswith("node"):
                _beside(folder, layer)
            else:
                found["FAASLITE_LAYER"] = str(layer)
        place = self._scratch / "secrets" / function.name
        for secret in spec.secrets:
            if secret not in secrets:
                raise BuildError(
                    f"{function.name}: there is no secret {secret}; put its keys as files into .secrets/{secret}/, or say --secret {secret}/KEY=VALUE"
                )
            (place / secret).mkdir(mode=0o700, parents=True, exist_ok=True)
            for name, value in secrets[secret].items():
                (place / secret / name).write_text(value)
        found["FAASLITE_SECRETS"] = str(place)
        return found

    def _extracted(self, layer: Layer) -> Path:
        place = self._cache / "folders" / layer.digest.removeprefix("sha256:")
        if not place.exists():
            new = place.with_suffix(".new")
            with tarfile.open(layer.path, mode="r:gz") as tar:
                tar.extractall(new, filter="data")
            new.rename(place)
        return place

    async def revive(self, running: Running) -> None:
        """Start the function again where its instance has ended by itself. Raises BuildError."""
        async with self._lock:
            old = running.instance
            if old is None or old.running:
                return
            running.instance = old.again()
            await old.stop()
            await running.instance.start()

    async def stop(self) -> None:
        await asyncio.gather(*(each.instance.stop() for each in self.table.values() if each.instance is not None))

    @property
    def triggers(self) -> list[Trigger]:
        return [trigger for each in self.table.values() for trigger in each.triggers]


def _folder(path: Path) -> Path:
    return path.resolve() if path.is_dir() else path.resolve().parent


def _beside(folder: Path, layer: Path) -> None:
    """Modules of a node function are found where npm would have put them."""
    modules = folder / "node_modules"
    if modules.is_symlink():
        modules.unlink()
    if not modules.exists():
        modules.symlink_to(layer)


def _triggers(function: Function, before: list[Trigger], now: float) -> list[Trigger]:
    since = {each.name: each.start for each in before}
    return [
        Trigger(
            function.name,
            each.name,
            each.schedule,
            each.time_zone,
            each.method,
            each.path,
            each.payload,
            since.get(each.name, now),
        )
        for each in function.spec.cron
        if not each.paused
    ]
