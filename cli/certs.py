"""`faas certs`: when the cluster's certificates end, and its CA replaced by a new one."""

from __future__ import annotations

import typer

from cli.context import home_folder
from cli.errors import CliError
from cli.options import DataDir, Output
from cli.output import Format, echo, emit, table

__all__ = ["app"]

app = typer.Typer(help="The cluster's certificates.", no_args_is_help=True, rich_markup_mode=None)

_NEXT = {
    "begin": "a new CA is trusted beside the old one, which still signs. Start the platform (`faas up`), give everybody the new kubeconfig "
    "(`faas kubeconfig`), then `faas certs rotate` again",
    "switch": "the new CA signs now, and the old one is still trusted. Start the platform (`faas up`), which makes its certificates anew; once nobody uses "
    "certificates of the old one any more, `faas certs rotate` again",
    "finish": "the old CA is trusted no more. Start the platform (`faas up`)",
}


@app.command("list")
def list_(data_dir: DataDir = None, output: Output = Format.table) -> None:
    """When each certificate of the data dir expires, the next one first."""
    from faaslite.launch.home import Home
    from faaslite.launch.rotation import expiries

    found = [
        {
            "name": each.name,
            "subject": each.subject,
            "expires": f"{each.end:%Y-%m-%dT%H:%M:%SZ}",
            "days": each.left.days,
        }
        for each in expiries(Home(home_folder(data_dir)).pki)
    ]
    if output is not Format.table:
        emit(found, output)
        return
    rows = [(each["name"], each["subject"], each["expires"], each["days"]) for each in found]
    table(("NAME", "SUBJECT", "EXPIRES", "DAYS"), rows, "no certificates yet; `faas up` makes them")


@app.command()
def rotate(data_dir: DataDir = None) -> None:
    """Take the next of three steps to a new CA: trust it too, sign with it, drop the old one. The platform must not run."""
    import fcntl

    from faaslite.launch.home import Home
    from faaslite.launch.rotation import advance

    home = Home(home_folder(data_dir))
    if not home.lock.exists():
        raise CliError(f"there is no cluster in {home.path} yet; start one with `faas up`")
    with home.lock.open("rb") as lock:  # also what `faas run` holds
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CliError("the platform runs, and reads its certificates as it starts: `faas down` first") from error
        echo(_NEXT[advance(home.pki)])
