"""Find out what isolation this node can hold, by trying it in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable

from .isolation import drop, enter_user_namespace, landlock_abi, seccomp_supported, unshare

__all__ = ["find_isolation"]


def _works(attempt: Callable[[], object]) -> bool:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            attempt()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def find_isolation(first_uid: int, without: frozenset[str] = frozenset()) -> list[str]:
    """The names of what can be held, in the order in which it is reported; `without` names what is not to be used.

    `user`: mounts are made in a user namespace, since we are not root. `uid`: each namespace has a user of its own, which needs
    `mount` as well, since the folders of others (the data dir, an interpreter in a home) are closed to such a user.
    """
    found = ["no_new_privs"]
    if seccomp_supported():
        found.append("seccomp")
    if landlock_abi():
        found.append("landlock")
    root = os.geteuid() == 0
    if root and _works(lambda: unshare("mount")):
        found.append("mount")
    elif not root and _works(enter_user_namespace):
        found += ["user", "mount"]
    if "mount" in without:
        found = [each for each in found if each not in ("mount", "user")]
    if "mount" in found:

        def prepare() -> None:
            if not root:
                enter_user_namespace()

        def leave(kind: str) -> bool:
            def attempt() -> None:
                prepare()
                unshare(kind)

            return _works(attempt)

        found += [each for each in ("ipc", "uts") if leave(each)]
        if root and _works(lambda: drop(first_uid, first_uid)):
            found.append("uid")
    return [each for each in found if each not in without]
