"""The transport ``ssh``: the storage is on another host, reached by the system's OpenSSH.

=============  =======================================================================
module         what it holds
=============  =======================================================================
``config``     the options, and the command line that they make
``ciphers``    which cipher is preferred, where nobody has said so
``sharing``    one connection for several ssh
``failures``   what ssh's exit status and words mean, as typed errors with remedies
``process``    one ssh as the carrier of one connection
``transport``  the transport
=============  =======================================================================

ssh is a child process, so that the user's own configuration, agent, keys, jump hosts and
hardware tokens work as they do in a shell. On the other host it starts ``fsrep endpoint``,
whose standard input and output are the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fsrep_core import hookimpl
from fsrep_ssh.config import SshConfig
from fsrep_ssh.transport import Ssh

if TYPE_CHECKING:
    from fsrep_core import Registry

__all__ = ["Ssh", "SshConfig", "plugin"]


class SshPlugin:
    """Adds the transport."""

    @hookimpl
    def register(self, registry: Registry) -> None:
        """See :meth:`fsrep_core.PluginSpec.register`."""
        registry.add_transport(
            "ssh",
            Ssh,
            config_class=SshConfig,
            summary="The storage is on another host, reached by OpenSSH.",
        )


plugin = SshPlugin()
