"""The transport ``unix-socket``: reaches ``fsrep serve`` through a socket file.

For accounts of one host, or for containers that share a folder. There are no keys and no
passwords: the kernel says in which account a client runs, and whoever may write to the
folder of the socket file decides who listens there.
"""

import errno
import pwd
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
import trio

from fsrep_core import (
    Caller,
    ConfigError,
    DescriptorStream,
    EndpointContext,
    Identified,
    Listener,
    Registry,
    StreamTransport,
    hookimpl,
)


@attrs.frozen(kw_only=True)
class UnixConfig:
    """The options of both ends."""

    path: Path
    """The socket file: ``fsrep serve`` makes it, and clients connect to it."""


@attrs.define(eq=False)
class UnixTransport(StreamTransport):
    """The end that connects."""

    config: UnixConfig

    def describe(self, context: EndpointContext) -> str:
        """See :meth:`fsrep_core.StreamTransport.describe`."""
        return f"{context.side.value} at {self.config.path}"

    async def connect(self, context: EndpointContext) -> trio.abc.Stream:  # noqa: ARG002  (one socket for all)
        """See :meth:`fsrep_core.StreamTransport.connect`."""
        stream = await trio.open_unix_socket(self.config.path)
        descriptor = stream.socket.detach()
        return DescriptorStream(descriptor, descriptor)


def account_name(user: int) -> str:
    """Give the name of an account, or its number where it has no name on this host."""
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


@attrs.define(eq=False)
class UnixCaller(Caller):
    """Somebody who has connected."""

    connection: socket.socket
    address: str

    async def identify(self) -> Identified:
        """See :meth:`fsrep_core.Caller.identify`."""
        with self.connection as connection:  # closes it, unless a stream has it by then
            told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            _, user, _ = struct.unpack("iII", told)  # process, user, group: see unix(7)
            name = await trio.to_thread.run_sync(account_name, user, abandon_on_cancel=True)
            descriptor = connection.detach()
            return Identified(identity=name, stream=DescriptorStream(descriptor, descriptor))


def make_socket_file(listening: socket.socket, path: Path) -> None:
    """Listen at a path, also where a server that was killed has left its socket file."""
    try:
        if listening.connect_ex(str(path)) == errno.ECONNREFUSED:
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o666)  # all may knock: who they are decides what they get
        listening.listen(socket.SOMAXCONN)
    except OSError as error:
        raise ConfigError(f"cannot listen at {path}: {error}", hint="see who else does") from error


@attrs.define(eq=False)
class UnixListener(Listener):
    """The end that accepts."""

    config: UnixConfig

    async def serve(
        self, welcome: Callable[[Caller], None], *, task_status: trio.TaskStatus[Sequence[str]]
    ) -> None:
        """See :meth:`fsrep_core.Listener.serve`."""
        path = self.config.path

        async def accept(stream: trio.SocketStream) -> None:
            connection = socket.socket(fileno=stream.socket.detach())  # trio closes what is left
            welcome(UnixCaller(connection, str(path)))

        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as listening:
            make_socket_file(listening, path)
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
            task_status.started([str(path)])
            await trio.serve_listeners(accept, [listener])


@hookimpl
def register(registry: Registry) -> None:
    """See :meth:`fsrep_core.PluginSpec.register`."""
    registry.add_transport(
        "unix-socket", UnixTransport, config_class=UnixConfig, summary="Connects to a socket file."
    )
    registry.add_listener(
        "unix-socket", UnixListener, config_class=UnixConfig, summary="Listens at a socket file."
    )
