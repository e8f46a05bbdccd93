"""The command line: what can be typed. What it does is in :mod:`fsrep_core.ops.commands`.

This module imports nothing but typer, and each command imports what it needs when it
runs: ``fsrep --version`` answers at once, and so does the shell's completion. A test
guards what is imported.

Exit status: 0 all is well; 1 something failed; 2 a mistake of usage or configuration,
nothing was run; 130 and 143 ended by SIGINT and SIGTERM.
"""

from __future__ import annotations

import enum
import io
import sys
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["app", "main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="fsrep",
    help="Replicate the versions of filesystems from a sender to a receiver.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LogFormat(enum.Enum):
    """How log lines look."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(enum.Enum):
    """Which log lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _complete_jobs(incomplete: str) -> list[str]:
    """Offer the job names of the configuration that would be read."""
    import os

    from fsrep_core.errors import ConfigError
    from fsrep_core.ops.files import find_config, read_job_names

    try:
        names = read_job_names(find_config(None, os.environ))
    except ConfigError:
        return []
    return [name for name in names if name.startswith(incomplete)]


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="The configuration. Default: $FSREP_CONFIG, ./fsrep.toml, "
        "~/.config/fsrep/fsrep.toml or /etc/fsrep/fsrep.toml, the first that exists.",
        show_default=False,
    ),
]
JobsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[JOB]...",
        help="Only these jobs. Default: all of the configuration.",
        autocompletion=_complete_jobs,
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document instead of text.")
]


def _print_version(wanted: bool) -> None:  # noqa: FBT001  (typer calls it so)
    if wanted:
        from importlib.metadata import version

        typer.echo(f"fsrep {version('fsrep')}")
        raise typer.Exit


@app.callback()
def _fsrep(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Replicate the versions of filesystems from a sender to a receiver."""


@app.command()
def demo(
    *,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Work in this new directory and keep it. Default: a temporary one.",
            show_default=False,
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the temporary directory.")] = False,
) -> None:
    """Show a full and three incremental replications of a generated tree, verified."""
    from fsrep_core.ops.commands.demo import demo as work

    raise typer.Exit(work(into, keep=keep))


@app.command()
def init(
    *,
    sender: Annotated[
        Path,
        typer.Option(
            metavar="DIRECTORY",
            help="What to replicate. Default: this directory.",
            show_default=False,
        ),
    ] = Path(),
    receiver: Annotated[
        Path | None,
        typer.Option(
            metavar="DIRECTORY",
            help="Where to. Default: beside the sender, with .replica added.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path,
        typer.Option("--config", "-c", metavar="FILE", help="The file to write."),
    ] = Path("fsrep.toml"),
) -> None:
    """Write a commented configuration to begin with. Overwrites nothing."""
    from fsrep_core.ops.commands.init import init as work

    raise typer.Exit(work(config, sender, receiver))


@app.command()
def check(
    jobs: JobsArgument = None, *, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Check the configuration, open both sides of each job, and list them."""
    from fsrep_core.ops.commands.check import check as work

    raise typer.Exit(work(config, jobs or (), as_json=json))


@app.command()
def plan(
    jobs: JobsArgument = None, *, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Show what a run would do now, and why. Changes nothing."""
    from fsrep_core.ops.commands.plan import plan as work

    raise typer.Exit(work(config, jobs or (), as_json=json))


@app.command()
def run(  # noqa: PLR0913  (each is an option of the command)
    jobs: JobsArgument = None,
    *,
    config: ConfigOption = None,
    json: JsonOption = False,
    metrics_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write metrics for node-exporter's textfile collector.",
            show_default=False,
        ),
    ] = None,
    log_format: Annotated[
        LogFormat | None,
        typer.Option(
            help="Write a log to standard error, instead of progress.", show_default=False
        ),
    ] = None,
    log_level: Annotated[
        LogLevel, typer.Option(help="Which lines such a log has.")
    ] = LogLevel.INFO,
) -> None:
    """Replicate. Exit status 0 means that everything is on the receiver."""
    from fsrep_core.ops.commands.run import RunOptions
    from fsrep_core.ops.commands.run import run as work

    options = RunOptions(
        as_json=json,
        metrics_file=metrics_file,
        log_format=log_format.value if log_format else None,
        log_level=log_level.value,
    )
    raise typer.Exit(work(config, jobs or (), options))


@app.command()
def snapshot(
    jobs: JobsArgument = None,
    *,
    config: ConfigOption = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Default: fsrep- and the time, UTC.", show_default=False),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Make a version of the filesystems of each job, on its sender."""
    from fsrep_core.ops.commands.snapshot import snapshot as work

    raise typer.Exit(work(config, jobs or (), name=name, as_json=json))


@app.command()
def versions(
    jobs: JobsArgument = None, *, config: ConfigOption = None, json: JsonOption = False
) -> None:
    """Show what each side of a job has, what is common, and what lags."""
    from fsrep_core.ops.commands.versions import versions as work

    raise typer.Exit(work(config, jobs or (), as_json=json))


@app.command()
def plugins(*, json: JsonOption = False) -> None:
    """List the installed storages and transports, and plugins that are broken."""
    from fsrep_core.ops.commands.plugins import plugins as work

    raise typer.Exit(work(as_json=json))


def main() -> None:
    """Run the command line and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may be any bytes
    try:
        app()
    except KeyboardInterrupt:
        typer.echo("fsrep: interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read the output is gone; there is nobody to tell
        sys.exit(EXIT_FAILED)
    except Exception as exc:  # noqa: BLE001  (what is not fsrep's is raised again)
        sys.exit(_tell(exc))


def _tell(error: Exception) -> int:
    """Print an error of fsrep for people and give the exit status; raise any other."""
    from fsrep_core.errors import ConfigError, FsrepError, PluginError
    from fsrep_core.ops.words import visible

    if not isinstance(error, FsrepError):
        raise error
    lines = error.message.splitlines()
    for line in lines:
        typer.echo(f"fsrep: {visible(line)}", err=True)
    if error.hint:
        typer.echo(f"    {visible(error.hint)}", err=True)
    if not isinstance(error, ConfigError | PluginError):
        return EXIT_FAILED
    if len(lines) > 1:
        typer.echo(f"fsrep: {len(lines)} mistakes; nothing was run", err=True)
    return EXIT_USAGE
