"""`faas images`: the runtime images that Docker nodes run functions in."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import CliError, Unreachable, Usage
from cli.options import Output
from cli.output import Format, echo, emit, note, table

__all__ = ["app"]

app = typer.Typer(help="Runtime images for Docker nodes.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def build(
    runtime: Annotated[str, typer.Argument(help="Which runtime.")] = "python",
    base: Annotated[str, typer.Option(help="A local base image.", show_default="python:X.Y-slim")] = "",
) -> None:
    """Build `faaslite/RUNTIME` on the local engine, from the base image given or from the official one."""
    from faaslite.launch.assets import runtime_images

    folder = runtime_images() / runtime
    if not (folder / "Dockerfile").exists():
        known = ", ".join(sorted(each.parent.name for each in folder.parent.glob("*/Dockerfile")))
        raise Usage(f"there is no runtime {runtime!r}; there are: {known}")
    engine = _engine()
    try:
        source = base or _official(runtime)
        _have(engine, source, given=bool(base))
        with tempfile.TemporaryDirectory(prefix="faaslite-image-") as scratch:
            context = Path(scratch, "context")
            shutil.copytree(folder, context, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
            if runtime == "python":
                _python_context(engine, source, context)
            note(f"building faaslite/{runtime} from {source}")
            image = _build(engine, f"faaslite/{runtime}", source, context)
        echo(f"faaslite/{runtime} is {image.short_id.removeprefix('sha256:')}, {image.attrs['Size'] / 1e6:.0f} MB")
    finally:
        engine.close()


def _official(runtime: str) -> str:
    return (
        f"python:{sys.version_info.major}.{sys.version_info.minor}-slim" if runtime == "python" else f"{runtime}:slim"
    )


def _build(engine: Any, name: str, source: str, context: Path) -> Any:
    from docker.errors import APIError, BuildError

    try:
        # The context has all it takes: a build without a network works on every engine.
        image, _ = engine.images.build(
            path=str(context),
            tag=f"{name}:latest",
            buildargs={"BASE": source},
            network_mode="none",
            rm=True,
            forcerm=True,
        )
    except BuildError as error:
        tail = "".join(str(each.get("stream") or each.get("error") or "") for each in error.build_log)[-800:]
        raise CliError(f"{name} can't be built: {error.msg}\n{tail}") from error
    except APIError as error:
        raise CliError(f"{name} can't be built: {error.explanation or error}") from error
    return image


def _python_context(engine: Any, source: str, context: Path) -> None:
    """Ask the base image which Python it has, and lay the shim's libraries for that one into the context."""
    from docker.errors import APIError, ContainerError

    from faaslite.build.wheels import PROBE, bring_installer, collect, parse_probe

    try:
        said = engine.containers.run(
            source, ["-I", "-c", PROBE], entrypoint="python3", network_mode="none", remove=True, stderr=False
        )
    except ContainerError as error:
        raise CliError(f"{source} can't be a base: its python3 ended with exit code {error.exit_status}") from error
    except APIError as error:
        raise CliError(
            f"{source} can't be a base, it has no python3 that runs: {error.explanation or error}"
        ) from error
    python = parse_probe(said.decode(errors="replace"), source)
    note(f"collecting the shim's libraries for Python {python.version[0]}.{python.version[1]}")
    collect(python, context / "libraries")
    (context / "installer").mkdir()
    if not python.installs:
        bring_installer(context / "installer")


@app.command("list")
def list_(output: Output = Format.table) -> None:
    """List the runtime images that the local engine has."""
    engine = _engine()
    try:
        found: list[dict[str, Any]] = [
            {"name": tag, "id": each.short_id.removeprefix("sha256:"), "size": each.attrs["Size"]}
            for each in engine.images.list()
            for tag in each.tags
            if tag.startswith("faaslite/")
        ]
    finally:
        engine.close()
    if output is not Format.table:
        emit(found, output)
        return
    rows = [(each["name"], each["id"], f"{each['size'] / 1e6:.0f} MB") for each in found]
    table(("IMAGE", "ID", "SIZE"), rows, "no runtime images; make one with `faas images build`")


def _engine() -> Any:
    import docker
    from docker.errors import DockerException

    try:
        engine = docker.from_env(timeout=600)
        engine.ping()
    except DockerException as error:
        raise Unreachable(
            "no Docker engine answers; start one, or name it with DOCKER_HOST (process nodes need no images)"
        ) from error
    return engine


def _have(engine: Any, image: str, *, given: bool) -> None:
    """Make sure that the engine has the base image. Raises CliError with what to do where it can't."""
    from docker.errors import APIError, ImageNotFound

    try:
        engine.images.get(image)
    except ImageNotFound:
        script = Path("runtime-images", "base", "build.sh")
        if given:
            raise CliError(
                f"the engine has no image {image}; bring it with `docker pull` or `docker load`, or make faaslite/base from "
                f"Debian's packages with `bash {script}` and give that"
            ) from None
        note(f"pulling {image}")
        try:
            engine.images.pull(image)
        except APIError as error:
            raise CliError(
                f"{image} can't be pulled ({error.explanation or error}); make a base image with `bash {script}` and "
                "give it with --base"
            ) from error
