"""Runs ``zfs``: one method for each subcommand that the storage needs.

Every argument that is a name begins with the root's name, so none can be taken for an
option. Messages are in English, whatever the host's settings.
"""

from __future__ import annotations

import os
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
import trio

from fsrep_core import (
    ByteStream,
    FsrepError,
    StorageError,
    feed_process,
    open_process_stream,
    run_process,
)
from fsrep_zfs.batching import chunks
from fsrep_zfs.listing import COLUMNS, Dataset, parse_listing
from fsrep_zfs.messages import Explanation, explain, joined

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence


__all__ = ["OpenedStream", "ZfsTool"]

PARTLY_DONE = (1,)
"""The exit status of a command that did what it could, and said what it could not."""

SIZE_WAIT_SECONDS = 30.0
"""How long the estimate may take that stands at the beginning of a send."""

_SIZE = re.compile(rb"(?m)^size\t(\d+)$")
_QUOTED = re.compile(r"'([^']*)'")
_WHOLE_TREE = "filesystem,volume,snapshot,bookmark"


@attrs.define(eq=False)
class OpenedStream:
    """A stream that ``zfs send`` makes, and what it said of its size."""

    stream: ByteStream
    size_bytes: int | None


@attrs.define(eq=False)
class ZfsTool:
    """The program ``zfs``, started as the operator wants it."""

    command: tuple[str, ...]

    # --- looking ---

    async def list_tree(self, root: str) -> dict[str, Dataset]:
        """List a dataset with everything below it: one process, whatever there is."""
        output = await self._run(
            f"listing {root}", ["list", *_columns(), "-r", "-t", _WHOLE_TREE, root]
        )
        return parse_listing(output)

    async def list_datasets(
        self, names: Sequence[str], known: Mapping[str, Dataset]
    ) -> dict[str, Dataset]:
        """List datasets with their versions, without what is below; a missing one is left out.

        :param known: what was listed before; see :func:`~fsrep_zfs.listing.parse_listing`
        """
        return await self._list_some(
            [(name,) for name in names], ["-d", "1", "-t", _WHOLE_TREE], known
        )

    async def list_snapshots(
        self, names: Iterable[str], known: Mapping[str, Dataset]
    ) -> dict[str, Dataset]:
        """List exactly these snapshots, with their datasets; a missing one is left out."""
        pairs = [(name.partition("@")[0], name) for name in names]
        return await self._list_some(pairs, ["-t", "all"], known)

    async def _list_some(
        self,
        groups: Sequence[Sequence[str]],
        options: Sequence[str],
        known: Mapping[str, Dataset],
    ) -> dict[str, Dataset]:
        found: dict[str, Dataset] = {}
        for some in chunks(groups):
            arguments = ["list", *_columns(), *options, *some]
            listed = await self._some(f"listing {_shown(some)}", arguments)
            found.update(parse_listing(listed, known))
        wanted = {group[0] for group in groups}
        return {name: each for name, each in found.items() if name in wanted}

    async def holds(self, snapshots: Sequence[str]) -> list[tuple[str, str]]:
        """List the holds of snapshots: name and tag of each."""
        rows = []
        for some in chunks((name,) for name in snapshots):
            text = await self._some(f"listing the holds of {_shown(some)}", ["holds", "-H", *some])
            rows += [line.split("\t")[:2] for line in text.splitlines() if line]
        return [(name, tag) for name, tag in rows]

    # --- holds ---

    async def hold(self, tag: str, snapshots: Sequence[str]) -> dict[str, FsrepError]:
        """Hold snapshots; give the error of each that is not held then."""
        return await self._each("hold", tag, snapshots, fine="tag already exists")

    async def release(self, tag: str, snapshots: Sequence[str]) -> dict[str, FsrepError]:
        """Release holds; give the error of each that is still held by this tag."""
        return await self._each("release", tag, snapshots, fine="no such tag|does not exist")

    async def _each(
        self, command: str, tag: str, snapshots: Sequence[str], *, fine: str
    ) -> dict[str, FsrepError]:
        """Do something to each snapshot; ``zfs`` goes on after those where it fails."""
        errors: dict[str, FsrepError] = {}
        for some in chunks((name,) for name in snapshots):
            attempt = f"{command} {tag} of {_shown(some)}"
            output = await run_process(
                [*self.command, command, tag, *some],
                explain=Explanation(attempt),
                env=_environment(),
                tolerate=PARTLY_DONE,
            )
            if output.status:
                complaints = _complaints(output.stderr, some, fine)
                errors.update(complaints)
        return errors

    # --- versions ---

    async def snapshot(self, names: Sequence[str]) -> None:
        """Make snapshots, all of one instant or none. Those of one pool only."""
        await self._run(f"making {_shown(names)}", ["snapshot", *names])

    async def destroy_snapshots(self, dataset: str, names: Sequence[str]) -> None:
        """Destroy snapshots of one dataset: those that are there, all or none."""
        for some in chunks((name,) for name in names):
            spec = f"{dataset}@{','.join(some)}"
            await self._run(f"destroying {_shown([spec])}", ["destroy", spec])

    async def destroy_bookmark(self, name: str) -> None:
        """Destroy one bookmark."""
        await self._run(f"destroying {name}", ["destroy", name])

    async def bookmark(self, source: str, name: str) -> None:
        """Make a bookmark of a snapshot or of another bookmark; one that is there is fine."""
        await self._run(
            f"marking {source} as {name}", ["bookmark", source, name], fine="bookmark exists"
        )

    async def roll_back(self, snapshot: str) -> None:
        """Give a dataset the state of its newest snapshot; refused if it is not the newest."""
        await self._run(f"rolling back to {snapshot}", ["rollback", snapshot])

    # --- receiving ---

    async def create_placeholder(self, name: str, properties: Mapping[str, str]) -> None:
        """Make a filesystem that is never mounted; one that is there is fine."""
        await self._run(
            f"making {name}, to hold others",
            ["create", "-u", *_settings(properties), name],
            fine="dataset already exists",
        )

    async def abort_receive(self, dataset: str) -> None:
        """Throw a partial receive away; that there is none is fine."""
        await self._run(
            f"discarding the partial receive of {dataset}",
            ["receive", "-A", dataset],
            fine="does not have any resumable receive state|dataset does not exist",
        )

    async def receive(  # noqa: PLR0913  (what zfs receive can be told)
        self,
        attempt: str,
        stream: ByteStream,
        dataset: str,
        *,
        overwrite: bool,
        override: Mapping[str, str],
        exclude: Iterable[str],
    ) -> str:
        """Feed a stream to ``zfs receive``; give what it complained about all the same."""
        output = await feed_process(
            [
                *(*self.command, "receive", "-s", "-u"),
                *(("-F",) if overwrite else ()),
                *_settings(override),
                *(argument for name in exclude for argument in ("-x", name)),
                dataset,
            ],
            stream,
            explain=Explanation(attempt),
            env=_environment(),
            keeps_partial=True,
        )
        return output.stderr

    # --- sending ---

    @asynccontextmanager
    async def send(
        self, attempt: str, arguments: Sequence[str], *, sized: bool
    ) -> AsyncIterator[OpenedStream]:
        """Open a stream.

        :param sized: have ``zfs send`` say first how much it will be; cheap unless it
            begins from a bookmark or a token, where it has to walk through the data
        """
        heard = _Size()
        async with open_process_stream(
            [*self.command, "send", *(("-vP",) if sized else ()), *arguments],
            explain=Explanation(attempt),
            env=_environment(),
            on_stderr=heard.hear if sized else None,
        ) as stream:
            if sized:
                with trio.move_on_after(SIZE_WAIT_SECONDS):
                    await heard.known.wait()
            yield OpenedStream(stream, heard.size_bytes)

    async def estimate(self, attempt: str, arguments: Sequence[str]) -> int | None:
        """Tell how many bytes a send would be, without sending."""
        output = await self._run(attempt, ["send", "-nvP", *arguments])
        found = _SIZE.findall(output.encode(errors="surrogateescape"))
        return int(found[-1]) if found else None

    # --- running ---

    async def _run(self, attempt: str, arguments: Sequence[str], *, fine: str | None = None) -> str:
        """Run a command to its end; an error whose words are ``fine`` is none."""
        output = await run_process(
            [*self.command, *arguments],
            explain=Explanation(attempt),
            env=_environment(),
            tolerate=PARTLY_DONE if fine else (),
        )
        if output.status and not re.search(fine or "", joined(output.stderr)):
            raise Explanation(attempt)(output.status, output.stderr)
        return os.fsdecode(output.stdout)

    async def _some(self, attempt: str, arguments: Sequence[str]) -> str:
        """Run a command on many things; that some of them are missing is no error."""
        output = await run_process(
            [*self.command, *arguments],
            explain=Explanation(attempt),
            env=_environment(),
            tolerate=PARTLY_DONE,
        )
        others = [line for line in joined(output.stderr).splitlines() if not _missing(line)]
        if output.status and others:
            raise Explanation(attempt)(output.status, output.stderr)
        return os.fsdecode(output.stdout)


@attrs.define(eq=False)
class _Size:
    """Hears how big a stream will be."""

    size_bytes: int | None = None
    known: trio.Event = attrs.field(factory=trio.Event)
    _said: bytearray = attrs.field(init=False, factory=bytearray)

    def hear(self, piece: bytes) -> None:
        if self.known.is_set():
            return
        self._said += piece
        match = _SIZE.search(self._said)
        if match:
            self.size_bytes = int(match[1])
        if match or not piece:
            self.known.set()


def _complaints(stderr: str, names: Sequence[str], fine: str) -> dict[str, FsrepError]:
    """Give the errors of a command on many names, each by the name that it quotes."""
    errors: dict[str, FsrepError] = {}
    for line in joined(stderr).splitlines():
        quoted = _QUOTED.search(line)
        if re.search(fine, line):
            continue
        error = explain("zfs", line) or StorageError(f"zfs: {line}")
        named = quoted[1] if quoted else None
        for name in [named] if named in names else names:
            errors[str(name)] = error
    return errors


def _missing(line: str) -> bool:
    return line.startswith("cannot open ") and line.endswith("does not exist")


def _columns() -> tuple[str, ...]:
    return ("-Hp", "-o", ",".join(COLUMNS))


def _settings(properties: Mapping[str, str]) -> list[str]:
    return [argument for each in properties.items() for argument in ("-o", "=".join(each))]


def _shown(names: Sequence[str]) -> str:
    """Name a few of many."""
    if len(names) <= 3:  # noqa: PLR2004  (as many as a sentence can bear)
        return ", ".join(names)
    return f"{names[0]} and {len(names) - 1} more"


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}
