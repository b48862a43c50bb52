"""The API's audit log, as the cluster's settings say: which policy, which file."""

from __future__ import annotations

from pathlib import Path

from core.apiserver.audit import Audit
from core.apiserver.audit.log import AuditLog
from core.apiserver.audit.policy import DEFAULT, Policy, PolicyError, read_policy
from faaslite.launch.errors import LaunchError
from faaslite.launch.home import Home
from faaslite.launch.settings import ClusterSettings

__all__ = ["audit", "audit_policy"]


def audit_policy(settings: ClusterSettings) -> Policy:
    """Raises LaunchError where the file isn't there or is no policy."""
    if not settings.audit_policy:
        return read_policy(DEFAULT, "the built-in policy")
    path = Path(settings.audit_policy)
    try:
        return read_policy(path.read_bytes(), str(path))
    except OSError as error:
        raise LaunchError(f"--audit-policy {path}: {error.strerror or error}") from error
    except PolicyError as error:
        raise LaunchError(f"--audit-policy {error}; an audit.k8s.io/v1 Policy is expected") from error


def audit(home: Home, settings: ClusterSettings) -> Audit:
    size, backups = settings.audit_log_maxsize << 20, settings.audit_log_maxbackup
    return Audit(audit_policy(settings), AuditLog(home.audit_log, size=size, backups=backups))
