"""The engine's command line: one command, one request, one answer, one exit status.

``send REQUEST`` writes the stream to standard output. ``receive REQUEST VOUCHER`` reads
its request from one descriptor and the stream from standard input, and commits only if a
byte then comes from the other descriptor: the end of the input alone would say nothing.
``create`` and ``destroy`` read their request from standard input.
Requests and answers are JSON. A failure is one line of JSON on standard error, and exit
status 1; nothing else is written there.
"""

from __future__ import annotations

import json
import os
import resource
import sys

from .failures import Failure, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["main"]


def main(arguments: list[str]) -> int:
    """Carry out one command.

    :returns: the exit status
    """
    os.umask(0)
    # A deep tree needs a descriptor for each level.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    try:
        answer = _carry_out(*arguments)
    except Failure as failure:
        sys.stderr.write(failure.to_json() + "\n")
        return 1
    except OSError as error:
        sys.stderr.write(from_os_error(error, f"{arguments[0]} failed").to_json() + "\n")
        return 1
    if answer is not None:
        sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _carry_out(command: str, *arguments: str) -> dict[str, Any] | None:
    if command == "send":
        from .send import send

        send(json.loads(arguments[0]), 1)
        return None
    if command == "receive":
        from .receive import receive

        with open(int(arguments[0]), "rb") as file:
            request = json.load(file)
        return receive(request, 0, lambda: os.read(int(arguments[1]), 1) == b"+")
    request = json.load(sys.stdin.buffer)
    if command == "create":
        from .create import create

        return create(request)
    if command == "destroy":
        from .destroy import destroy

        return destroy(request)
    raise Failure("storage", f"the engine knows no command {command!r}")
