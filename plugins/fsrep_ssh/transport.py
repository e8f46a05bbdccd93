"""The transport: one ssh for each connection; everything else is done by the base."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fsrep_core import StreamTransport, Timing
from fsrep_ssh.ciphers import config_files, preferred_ciphers
from fsrep_ssh.config import LEFT_TO_SSH, SshConfig, command_line
from fsrep_ssh.failures import explain, target_of
from fsrep_ssh.process import SshStream, start_ssh
from fsrep_ssh.sharing import make_private, sharing_options, socket_directory

if TYPE_CHECKING:
    from fsrep_core import EndpointContext

__all__ = ["Ssh"]


@attrs.define(eq=False)
class Ssh(StreamTransport):
    """Reaches ``fsrep endpoint`` on another host through the system's OpenSSH client."""

    config: SshConfig
    _argv: list[str] = attrs.field(init=False)
    _sockets: Path | None = attrs.field(init=False, default=None)
    """Where the socket of a shared connection is; ``None`` = none is shared."""

    def __attrs_post_init__(self) -> None:
        config, sharing = self.config, {}
        ciphers = config.ciphers or preferred_ciphers(config_files())
        if ciphers == LEFT_TO_SSH:
            ciphers = None
        stay_seconds = config.share_connection_seconds
        if stay_seconds is not None:
            self._sockets = socket_directory(os.environ)
            sharing = sharing_options(config, ciphers, self._sockets, stay_seconds)
        self._argv = command_line(config, ciphers, sharing)

    async def connect(self, _context: EndpointContext) -> SshStream:
        """See :meth:`fsrep_core.StreamTransport.connect`."""
        if self._sockets is not None:
            make_private(self._sockets)
        return await start_ssh(
            self._argv, target=target_of(self.config), explain=partial(explain, self.config)
        )

    def describe(self, context: EndpointContext) -> str:
        """See :meth:`fsrep_core.StreamTransport.describe`."""
        return f"{context.side.value} at {target_of(self.config)}"

    def timing(self) -> Timing:
        """See :meth:`fsrep_core.StreamTransport.timing`."""
        return Timing(connect_seconds=2 * self.config.connect_timeout_seconds)
