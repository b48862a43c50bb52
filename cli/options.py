"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.builds import BuildPlace
from cli.output import Format

__all__ = [
    "AllNamespaces", "Build", "Concurrency", "Cpu", "Crons", "DataDir", "Env", "Handler", "Maximum", "Memory", "Minimum", "Name", "Namespace", "Output",
    "Preview", "Runtime", "Secrets", "Timeout", "Upgrade",
]  # fmt: skip

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", envvar="FAASLITE_NAMESPACE", help="The team's namespace.", show_default=True)
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to print it.", case_sensitive=False)]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the cluster keeps its data [default: $FAASLITE_HOME or ~/.faaslite].",
        show_default=False,
    ),
]

# What a function is, for `deploy`, `diff` and `dev`.

Name = Annotated[
    str, typer.Option(help="The function's name; of several, the one that is meant.", show_default="the folder's name")
]
Handler = Annotated[str, typer.Option(help="MODULE:NAME of the handler.", show_default="found by itself")]
Runtime = Annotated[
    str, typer.Option(help="python, node or image; python3.12 for a version.", show_default="by the code")
]
Env = Annotated[list[str] | None, typer.Option(help="KEY=VALUE in the environment; may be repeated.")]
Secrets = Annotated[list[str] | None, typer.Option("--secret", help="A secret to mount; may be repeated.")]
Crons = Annotated[
    list[str] | None, typer.Option("--cron", help="'*/5 * * * *', @hourly, '@every 5s'; may be repeated.")
]
Minimum = Annotated[int | None, typer.Option("--min", help="Instances that are always kept.")]
Maximum = Annotated[int | None, typer.Option("--max", help="Instances at most.")]
Concurrency = Annotated[int | None, typer.Option(help="Calls per instance at one time, 0 for no limit.")]
Timeout = Annotated[str, typer.Option(help="The deadline of a call, such as 30s.")]
Memory = Annotated[str, typer.Option(help="Memory limit of an instance, such as 128Mi.")]
Cpu = Annotated[str, typer.Option(help="CPU of an instance, such as 250m.")]
Preview = Annotated[bool, typer.Option("--preview", help="As NAME-preview, beside what serves; never run by cron.")]
Build = Annotated[
    BuildPlace | None,
    typer.Option(
        "--build",
        help="Where dependencies are installed: by the cluster, or on this machine.",
        show_default="cluster, where it builds",
    ),
]
Upgrade = Annotated[bool, typer.Option("--upgrade", help="Resolve dependencies anew, though a layer of them is kept.")]
