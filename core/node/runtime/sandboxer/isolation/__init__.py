"""What a process gives up before it runs code that isn't ours.

Used on both sides: the sandboxer asks what is permitted (`abilities`), and the zygotes, which know nothing of this project's
packages, load this folder by its path. So: the standard library alone, relative imports, nothing imported at use.
"""

from __future__ import annotations

from .forking import forker_beside
from .landlock import Ruleset, landlock_abi
from .mounts import attach, detach, enter_root, make_private, make_shared, mounts_below, scratch, shared_scratch
from .privileges import (
    bound_processes,
    drop,
    enter_user_namespace,
    no_new_privs,
    parent_death_signal,
    subreaper,
    unshare,
)
from .seccomp import install_filter, seccomp_supported

__all__ = [
    "Ruleset", "attach", "bound_processes", "detach", "drop", "enter_root", "enter_user_namespace", "forker_beside", "install_filter", "landlock_abi", "make_private", "make_shared", "mounts_below", "no_new_privs", "parent_death_signal", "scratch", "seccomp_supported", "shared_scratch",
    "subreaper", "unshare",
]  # fmt: skip
