"""What every command that works on jobs begins with: plugins, configuration, endpoints."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from fsrep_core.errors import ConfigError
from fsrep_core.ops.config import JobConfig
from fsrep_core.ops.files import find_config, load_config
from fsrep_core.runtime.options import nearest
from fsrep_core.runtime.registry import Registry, load_plugins
from fsrep_core.shown import Shown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from fsrep_core.ops.serve_config import ServeConfig  # noqa: TC004  (its import costs time, and a job needs none)
    from fsrep_core.ops.serving import IdentityConfig  # noqa: TC004  (its import costs time, and a job needs none)
    from fsrep_core.runtime.binding import Endpoint
    from fsrep_core.runtime.settings import JobSettings
    from fsrep_core.values import Side

__all__ = ["Session", "job_settings", "open_session", "open_side", "open_sides"]


@attrs.frozen(kw_only=True, repr=False)
class Session(Shown):
    """A configuration that was found to be right, and the jobs that were asked for."""

    config_path: Path
    registry: Registry
    jobs: tuple[JobConfig, ...]
    identities: tuple[IdentityConfig, ...]
    """The clients that are served."""
    serve: ServeConfig | None
    """Where to listen for them."""


def open_session(
    config_path: Path | None, job_names: Sequence[str], *, jobs_needed: bool = True
) -> Session:
    """Load plugins and configuration and choose jobs; no name means all.

    :param jobs_needed: refuse a file that only has a serving side
    :raises ConfigError: the configuration cannot be used, or has no such job
    """
    path = find_config(config_path, os.environ)
    registry = load_plugins()
    config = load_config(path, registry)
    if jobs_needed and not config.jobs:
        raise ConfigError(f"{path}: there is no job", hint="write one that begins with [[job]]")
    known = {job.name: job for job in config.jobs}
    for name in job_names:
        if name not in known:
            raise ConfigError(f'{path}: there is no job "{name}"', hint=nearest(name, known))
    chosen = [known[name] for name in dict.fromkeys(job_names)] or config.jobs
    return Session(
        config_path=path,
        registry=registry,
        jobs=tuple(chosen),
        identities=config.identities,
        serve=config.serve,
    )


def job_settings(job: JobConfig) -> JobSettings:
    """Give the driver's part of a job."""
    from fsrep_core.runtime.settings import JobSettings

    return JobSettings(
        name=job.name,
        filesystems=job.filesystems,
        policy=job.policy,
        concurrency=job.concurrency,
        estimate_concurrency=job.estimate_concurrency,
        retry_for_seconds=job.retry_for_seconds,
        progress_timeout_seconds=job.progress_timeout_seconds,
    )


@asynccontextmanager
async def open_side(session: Session, job: JobConfig, side: Side) -> AsyncIterator[Endpoint]:
    """Open one side of a job.

    :raises FsrepError: it cannot be reached, or its plugin is broken
    """
    from fsrep_core.runtime.binding import SideSettings, open_endpoint

    config = getattr(job, side.value)
    settings = SideSettings(
        side=side,
        transport=config.transport.name,
        transport_options=config.transport.options,
        storage=config.storage.name,
        storage_options=config.storage.options,
        rate_limit_bytes_per_second=config.rate_limit_bytes_per_second,
    )
    async with open_endpoint(
        session.registry,
        settings,
        job=job.name,
        call_timeout_seconds=job.call_timeout_seconds,
    ) as endpoint:
        yield endpoint


@asynccontextmanager
async def open_sides(session: Session, job: JobConfig) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    """Open the sender and the receiver of a job.

    :raises FsrepError: as with :func:`open_side`
    """
    from fsrep_core.values import Side

    async with (
        open_side(session, job, Side.SENDER) as sender,
        open_side(session, job, Side.RECEIVER) as receiver,
    ):
        yield sender, receiver
