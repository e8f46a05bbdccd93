"""Hosts made of network namespaces, joined as by a switch.

Each has an interface with an IPv4 and an IPv6 address of its own and shares the disk of
this one; a process belongs to it by ``ip netns exec``. This process can be a host among
them, by an interface of its own. Links can be taken down and up again.

The addresses are those set aside for measurements (RFC 2544) and for private use (RFC
4193). What is left of a namespace ends with it: its processes, interfaces and addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import attrs

__all__ = ["Host", "Network", "network_of", "why_no_hosts"]

NETWORK = os.getpid() % 250
"""Its number among the networks of this machine: processes that test side by side have
different ones."""
INTERFACE = "eth0"
SWITCH = "switch"
CLONE_NEWNET = 0x40000000  # linux/sched.h
DEADLINE_SECONDS = 10

_libc = ctypes.CDLL(None, use_errno=True)


def why_no_hosts():
    """Say what is missing for hosts; ``None`` = nothing."""
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    missing = [name for name in ("ip", "ss") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not found: install iproute2"
    return None


def ip(*words, check=True):
    """Run ``ip``; give what it printed."""
    argv = [shutil.which("ip"), *map(str, words)]
    return subprocess.run(argv, check=check, capture_output=True, text=True).stdout


@attrs.frozen
class Host:
    """One namespace and its place on the switch."""

    name: str
    number: int
    namespace: str
    port: str
    """The switch's end of its cable."""

    @property
    def ipv4(self):
        return f"198.18.{NETWORK}.{self.number}"

    @property
    def ipv6(self):
        return f"fd5a:66:{NETWORK + 1:x}::{self.number}"

    @property
    def addresses(self):
        return (self.ipv4, self.ipv6)

    def within(self, *words):
        """The command line of a command on this host."""
        return ["ip", "netns", "exec", self.namespace, *map(str, words)]

    @contextlib.contextmanager
    def entered(self):
        """Make what the calling thread opens meanwhile this host's: sockets, most of all."""
        with Path("/proc/thread-self/ns/net").open() as ours:
            with Path("/run/netns", self.namespace).open() as theirs:
                _enter(theirs)
            try:
                yield
            finally:
                _enter(ours)

    def socket(self):
        """Give a TCP socket of this host, as this process can use it."""
        made = []

        def make():  # in a thread, so that no other code is ever elsewhere
            with self.entered():
                made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]


def _enter(namespace):
    if _libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


@attrs.frozen
class Network:
    """A switch and the hosts on it."""

    label: str
    """Begins the names of everything that is made, and is this network's own."""
    hosts: list[Host] = attrs.field(factory=list)

    @property
    def switch(self):
        return f"{self.label}-{SWITCH}"

    def add_host(self, name):
        host = Host(name, len(self.hosts) + 1, f"{self.label}-{name}", name)
        self.hosts.append(host)
        ip("netns", "add", host.namespace)
        inside = ("-n", host.namespace)
        peer = ("peer", "name", host.port, "netns", self.switch)
        ip(*inside, "link", "add", INTERFACE, "type", "veth", *peer)
        self._connect(host, inside, INTERFACE)
        ip(*inside, "link", "set", "dev", "lo", "up")
        return host

    def add_this_host(self):
        """Connect the namespace of this process. Its interface ends with the switch."""
        host = Host("here", len(self.hosts) + 1, "", "here")
        self.hosts.append(host)
        peer = ("peer", "name", host.port, "netns", self.switch)
        ip("link", "add", self.label, "type", "veth", *peer)
        self._connect(host, (), self.label)
        return host

    def _connect(self, host, inside, interface):
        ip("-n", self.switch, "link", "set", "dev", host.port, "master", "bridge", "up")
        ip(*inside, "address", "add", f"{host.ipv4}/24", "dev", interface)
        ip(*inside, "address", "add", f"{host.ipv6}/64", "dev", interface, "nodad")
        ip(*inside, "link", "set", "dev", interface, "up")

    def take_down(self, host):
        """Let nothing through between a host and the others; it is not told."""
        ip("-n", self.switch, "link", "set", "dev", host.port, "nomaster")

    def put_up(self, host):
        ip("-n", self.switch, "link", "set", "dev", host.port, "master", "bridge")

    def wait_until_all_answer(self):
        """See that each host reaches each other one, which takes a moment at first."""
        for family in ("ipv4", "ipv6"):
            for source in self.hosts:
                for target in self.hosts:
                    if source is not target and source.namespace:
                        _wait_until_reached(source, getattr(target, family))

    def processes(self, *hosts):
        """The ids of what runs on these hosts; on all of them, apart from this one."""
        hosts = hosts or [host for host in self.hosts if host.namespace]
        listed = [ip("netns", "pids", host.namespace, check=False) for host in hosts]
        return [int(pid) for each in listed for pid in each.split()]


def _wait_until_reached(source, address):
    """A refusal proves the way as well as an answer does."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    attempt = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], 9), timeout=0.5)\n"
        "except ConnectionRefusedError: sys.exit(0)\n"
        "except OSError: sys.exit(1)\n"
    )
    words = source.within("python3", "-S", "-c", attempt, address)
    while subprocess.run(words, check=False).returncode:
        assert time.monotonic() < deadline, f"{source.name} does not reach {address}"


@contextlib.contextmanager
def network_of(*names):
    """Make hosts of these names, and remove everything of them in the end."""
    network = Network(f"fsr{os.getpid()}")
    ip("netns", "add", network.switch)
    try:
        ip("-n", network.switch, "link", "add", "bridge", "type", "bridge", "forward_delay", 0)
        ip("-n", network.switch, "link", "set", "dev", "bridge", "up")
        for name in names:
            network.add_host(name)
        yield network
    finally:
        for pid in network.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        namespaces = [host.namespace for host in network.hosts if host.namespace]
        for name in [*namespaces, network.switch]:
            ip("netns", "delete", name, check=False)
        if len(namespaces) < len(network.hosts):  # mostly it went with its peer
            ip("link", "delete", "dev", network.label, check=False)
