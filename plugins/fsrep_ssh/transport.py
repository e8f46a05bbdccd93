"""The transport: one ssh for each connection; everything else is done by the base."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs

from fsrep_core import StreamTransport, Timing
from fsrep_ssh.ciphers import config_files, preferred_ciphers
from fsrep_ssh.config import LEFT_TO_SSH, SshConfig, command_line
from fsrep_ssh.failures import explain, target_of
from fsrep_ssh.process import SshStream, start_ssh

if TYPE_CHECKING:
    from fsrep_core import EndpointContext

__all__ = ["Ssh"]


@attrs.define(eq=False)
class Ssh(StreamTransport):
    """Reaches ``fsrep endpoint`` on another host through the system's OpenSSH client."""

    config: SshConfig
    _argv: list[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        ciphers = self.config.ciphers or preferred_ciphers(config_files())
        self._argv = command_line(self.config, None if ciphers == LEFT_TO_SSH else ciphers)

    async def connect(self, _context: EndpointContext) -> SshStream:
        """See :meth:`fsrep_core.StreamTransport.connect`."""
        return await start_ssh(
            self._argv, target=target_of(self.config), explain=partial(explain, self.config)
        )

    def describe(self, context: EndpointContext) -> str:
        """See :meth:`fsrep_core.StreamTransport.describe`."""
        return f"{context.side.value} at {target_of(self.config)}"

    def timing(self) -> Timing:
        """See :meth:`fsrep_core.StreamTransport.timing`."""
        return Timing(connect_seconds=2 * self.config.connect_timeout_seconds)
