"""The cluster's CA replaced in three steps, so that nobody who trusts the old one is cut off before he has the new one.

1. `begin`: a new CA is made and trusted beside the old one, which still signs. Whoever has a kubeconfig gets the newer one now.
2. `switch`: the new CA signs; the certificates of the API server, the nodes and the gateway are made anew by it. The old one is still trusted.
3. `finish`: the old one is trusted no more, and what it signed is worth nothing.

Each step is of files alone and takes effect as the platform starts. A step that was cut short is taken again from its beginning.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from faaslite.launch.errors import LaunchError
from faaslite.launch.pki import make_ca, write_private

__all__ = ["WARN_BEFORE", "Expiry", "advance", "expiries", "phase"]

WARN_BEFORE = timedelta(days=30)
_PEM = serialization.Encoding.PEM


@dataclass(frozen=True, slots=True)
class Expiry:
    """One certificate of the data dir. `left` is negative once it has expired."""

    name: str
    subject: str
    end: datetime
    left: timedelta

    @property
    def near(self) -> bool:
        return self.left < WARN_BEFORE

    def warning(self) -> str:
        """What to tell the owner, "" while there is time."""
        if not self.near:
            return ""
        when = f"expired on {self.end:%Y-%m-%d}" if self.left < timedelta() else f"expires in {self.left.days} days"
        remedy = (
            "`faas certs rotate` makes a new one"
            if self.name == "ca"
            else "`faas down`, then `faas up` makes a new one"
        )
        return f"the certificate {self.name} {when}; {remedy}"


def expiries(folder: Path, now: datetime | None = None) -> list[Expiry]:
    """Every certificate in `folder`, the soonest to expire first. Raises LaunchError where one can't be read."""
    now = now or datetime.now(UTC)
    found = []
    for path in sorted(folder.glob("*.crt")):
        for number, each in enumerate(_read(path)):
            name = path.stem if number == 0 else f"{path.stem} (trusted too)"
            end = each.not_valid_after_utc
            found.append(Expiry(name, each.subject.rfc4514_string(), end, end - now))
    return sorted(found, key=lambda each: each.end)


def phase(folder: Path) -> str:
    """The step that comes next: `begin`, `switch` or `finish`."""
    if (folder / "ca-next.crt").exists():
        return "switch"
    if (folder / "ca-next.key").exists():
        return "begin"  # it was cut short
    return "finish" if len(_read(folder / "ca.crt")) > 1 else "begin"


def advance(folder: Path, now: datetime | None = None) -> str:
    """Take the next step and say which it was. Raises LaunchError."""
    now = now or datetime.now(UTC)
    step = phase(folder)
    try:
        if step == "begin":
            _begin(folder, now)
        elif step == "switch":
            _switch(folder)
        else:
            write_private(folder / "ca.crt", _read(folder / "ca.crt")[0].public_bytes(_PEM))
    except OSError as error:
        raise LaunchError(
            f"the certificates in {folder} can't be written: {error.strerror or error}; try again"
        ) from error
    return step


def _begin(folder: Path, now: datetime) -> None:
    old = _read(folder / "ca.crt")[0]
    certificate, key = make_ca(now, f"faaslite-ca-{now:%Y%m%d%H%M%S}")
    # The certificate that says how far we are comes last: cut short before it, the step is taken again.
    write_private(folder / "ca-next.key", _pem(key))
    write_private(folder / "ca.crt", old.public_bytes(_PEM) + certificate.public_bytes(_PEM))
    write_private(folder / "ca-next.crt", certificate.public_bytes(_PEM))


def _switch(folder: Path) -> None:
    new = _read(folder / "ca-next.crt")[0]
    old = [each for each in _read(folder / "ca.crt") if each != new]
    if (next_key := folder / "ca-next.key").exists():
        write_private(folder / "ca.crt", b"".join(each.public_bytes(_PEM) for each in (new, *old)))
        next_key.replace(folder / "ca.key")
    (folder / "ca-next.crt").unlink()


def _pem(key: object) -> bytes:
    data: bytes = key.private_bytes(  # type: ignore[attr-defined]
        _PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return data


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except FileNotFoundError as error:
        raise LaunchError(f"there is no {path}; `faas up` makes the cluster's certificates") from error
    except (OSError, ValueError) as error:
        raise LaunchError(
            f"the certificate {path} can't be read: {error}; restore it, or remove it to have a new one made"
        ) from error
