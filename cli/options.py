"""Options that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.output import Format

__all__ = ["AllNamespaces", "DataDir", "Namespace", "Output"]

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
