"""The user ``nobody``, who has no rights: what tests do in a process of theirs."""

from __future__ import annotations

import os
import traceback
import warnings
from pathlib import Path

__all__ = ["NOBODY", "as_nobody", "let_in"]

NOBODY = 65534


def let_in(path):
    """Let everybody reach a path."""
    for folder in (Path(path), *Path(path).parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o011)


def as_nobody(work):
    """Do something in a process of this user; tell whether it was done.

    What it raised is printed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of threads; none matters here
        child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
            status = 0
        except BaseException:  # noqa: BLE001  (the parent sees no error, and this)
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return status == 0
