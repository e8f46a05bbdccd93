"""The command line: what can be typed. What it does is in :mod:`fsrep_core.ops.commands`.

This module imports little but click, and each command imports what it needs when it
runs: ``fsrep --version`` answers at once, and so does the shell's completion. A test
guards what is imported. (typer would save a few lines and cost every command the import
of pydantic, which takes longer than all of fsrep.)

Exit status: 0 all is well; 1 something failed; 2 a mistake of usage or configuration,
nothing was run; 130 and 143 ended by SIGINT and SIGTERM.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from fsrep_core import __version__
from fsrep_core.ops.garbage import spare_the_end, spare_the_start

__all__ = ["cli", "main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

LOG_FORMATS = ("console", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")
SHELLS = ("bash", "zsh", "fish")

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def _complete_jobs(context: click.Context, _parameter: object, incomplete: str) -> list[str]:
    """Offer the job names of the configuration that would be read."""
    from fsrep_core.errors import ConfigError
    from fsrep_core.ops.files import find_config, read_job_names

    named: Path | None = context.params["config"]
    try:
        # The shell hands over what is typed: no tilde has been expanded yet.
        names = read_job_names(find_config(named and named.expanduser(), os.environ))
    except ConfigError:
        return []
    return [name for name in names if name.startswith(incomplete)]


def _print_version(context: click.Context, _parameter: object, wanted: bool) -> None:  # noqa: FBT001  (click calls it so)
    if wanted:
        click.echo(f"fsrep {__version__}")
        context.exit()


def _config_option(command: CommandT) -> CommandT:
    return click.option(
        "--config",
        "-c",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="The configuration. Default: $FSREP_CONFIG, ./fsrep.toml, "
        "~/.config/fsrep/fsrep.toml or /etc/fsrep/fsrep.toml, the first that exists.",
    )(command)


def _json_option(command: CommandT) -> CommandT:
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
    )(command)


def _jobs_argument(command: CommandT) -> CommandT:
    return click.argument("jobs", metavar="[JOB]...", nargs=-1, shell_complete=_complete_jobs)(
        command
    )


def _certificates_option(command: CommandT) -> CommandT:
    return click.option(
        "--directory",
        metavar="DIRECTORY",
        type=click.Path(path_type=Path),
        default=Path(),
        help="Where the CA and the certificates are. Default: this directory.",
    )(command)


def _days_option(default: int) -> Callable[[CommandT], CommandT]:
    return click.option(
        "--days",
        metavar="NUMBER",
        type=click.IntRange(min=1, max=36500),
        default=default,
        help=f"How long the certificate is valid. Default: {default}.",
    )


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)
def cli() -> None:
    """Replicate the versions of filesystems from a sender to a receiver.

    A JOB is one of the configuration; without any, a command works on all of them.
    """


@cli.command()
@click.option(
    "--into",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Work in this new directory and keep it. Default: a temporary one.",
)
@click.option("--keep", is_flag=True, help="Keep the temporary directory.")
def demo(into: Path | None, *, keep: bool) -> int:
    """Show a full and three incremental replications, each verified."""
    from fsrep_core.ops.commands.demo import demo as work

    return work(into, keep=keep)


@cli.command()
@click.option(
    "--sender",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    default=Path(),
    help="What to replicate. Default: this directory.",
)
@click.option(
    "--receiver",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    help="Where to. Default: beside the sender, with .replica added.",
)
@click.option(
    "--config",
    "-c",
    metavar="FILE",
    type=click.Path(path_type=Path),
    default=Path("fsrep.toml"),
    help="The file to write. Default: fsrep.toml.",
)
def init(sender: Path, receiver: Path | None, config: Path) -> int:
    """Write a commented configuration to begin with."""
    from fsrep_core.ops.commands.init import init as work

    return work(config, sender, receiver)


@cli.command()
@_jobs_argument
@_config_option
@_json_option
def check(jobs: tuple[str, ...], config: Path | None, *, as_json: bool) -> int:
    """Check the configuration, and list both sides of each job."""
    from fsrep_core.ops.commands.check import check as work

    return work(config, jobs, as_json=as_json)


@cli.command()
@_jobs_argument
@_config_option
@_json_option
def plan(jobs: tuple[str, ...], config: Path | None, *, as_json: bool) -> int:
    """Show what a run would do now, and why. Changes nothing."""
    from fsrep_core.ops.commands.plan import plan as work

    return work(config, jobs, as_json=as_json)


@cli.command()
@_jobs_argument
@_config_option
@_json_option
@click.option(
    "--metrics-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write metrics for node-exporter's textfile collector.",
)
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    help="Write a log to standard error, instead of progress.",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    help="Which lines such a log has. Default: info.",
)
def run(jobs: tuple[str, ...], config: Path | None, **options: Any) -> int:  # noqa: ANN401  (as RunOptions says)
    """Replicate. Exit status 0 means that everything is on the receiver."""
    from fsrep_core.ops.commands.run import RunOptions
    from fsrep_core.ops.commands.run import run as work

    return work(config, jobs, RunOptions(**options))


@cli.command()
@_jobs_argument
@_config_option
@click.option("--name", metavar="NAME", help="Default: fsrep- and the time, UTC.")
@_json_option
def snapshot(jobs: tuple[str, ...], config: Path | None, *, name: str | None, as_json: bool) -> int:
    """Make a version of each job's filesystems, on its sender."""
    from fsrep_core.ops.commands.snapshot import snapshot as work

    return work(config, jobs, name=name, as_json=as_json)


@cli.command()
@_jobs_argument
@_config_option
@_json_option
def versions(jobs: tuple[str, ...], config: Path | None, *, as_json: bool) -> int:
    """Show what each side has, what is common, and what lags."""
    from fsrep_core.ops.commands.versions import versions as work

    return work(config, jobs, as_json=as_json)


@cli.command()
@_json_option
def plugins(*, as_json: bool) -> int:
    """List storages and transports, and plugins that are broken."""
    from fsrep_core.ops.commands.plugins import plugins as work

    return work(as_json=as_json)


@cli.command()
@click.option(
    "--identity",
    metavar="NAME",
    help="Serve what the configuration grants this identity, whatever the client asks for. "
    "Default: what the client asks for.",
)
@click.option(
    "--config",
    "-c",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration with the identity; found as for the other commands.",
)
@click.option(
    "--log",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Where the endpoint of an identity writes a line for each connection and operation, or "
    '"syslog". Default: the system\'s log, if there is one.',
)
def endpoint(identity: str | None, config: Path | None, log: Path | None) -> int:
    """Serve one client over standard input and output, as ssh starts it."""
    from fsrep_core.ops.commands.endpoint import endpoint as work

    return work(config, identity=identity, log=log)


@cli.group()
def ssh() -> None:
    """Let clients in over ssh."""


@ssh.command("authorized-key")
@click.argument("name")
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The client's public key. Default: leave room for it.",
)
@_config_option
def authorized_key(name: str, key: Path | None, config: Path | None) -> int:
    """Print the line of authorized_keys for one identity of the configuration."""
    from fsrep_core.ops.commands.ssh import authorized_key as work

    return work(name, key, config)


@cli.command()
@_config_option
@click.option(
    "--metrics-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write for node-exporter's textfile collector when certificates end.",
)
@click.option(
    "--log-format",
    type=click.Choice(LOG_FORMATS),
    default="console",
    help="How the log on standard error is written. Default: console.",
)
@click.option(
    "--log-level",
    type=click.Choice(LOG_LEVELS),
    default="info",
    help="Which lines it has. Default: info.",
)
def serve(
    config: Path | None, *, metrics_file: Path | None, log_format: str, log_level: str
) -> int:
    """Serve the clients of the configuration, until SIGTERM or SIGINT."""
    from fsrep_core.ops.commands.serve import serve as work

    return work(config, metrics_file=metrics_file, log_format=log_format, log_level=log_level)


@cli.group()
def tls() -> None:
    """Make certificates for hosts that reach each other over TLS."""


@tls.command()
@_certificates_option
@_days_option(3650)
def ca(directory: Path, days: int) -> int:
    """Make a CA: its certificate vouches for the certificates of all hosts."""
    from fsrep_core.ops.commands.tls import ca as work

    return work(directory, days=days)


@tls.command()
@click.argument("name")
@click.option(
    "--also",
    metavar="NAME",
    multiple=True,
    help="A further name or address of the host; may be given several times.",
)
@_certificates_option
@_days_option(365)
@click.option(
    "--renew",
    "anew",
    is_flag=True,
    help="Replace the certificate by one for the same key and names.",
)
def issue(name: str, also: tuple[str, ...], directory: Path, *, days: int, anew: bool) -> int:
    """Issue a certificate for the host NAME, with the CA of the same directory."""
    from fsrep_core.ops.commands.tls import issue as work

    return work(name, also, directory, days=days, anew=anew)


@cli.group()
def zfs() -> None:
    """Prepare hosts for the storage zfs, and see what it has left on them."""


def _place_options(command: CommandT) -> CommandT:
    command = click.option(
        "--identity", metavar="NAME", help="The storage that this client is served."
    )(command)
    return click.option("--job", metavar="NAME", help="The storage of this job.")(command)


@zfs.command("allow")
@click.argument("side", type=click.Choice(["sender", "receiver"]))
@_place_options
@click.option(
    "--user",
    metavar="USER",
    required=True,
    help="Who shall work without being root.",
)
@_config_option
def zfs_allow(
    side: str, job: str | None, identity: str | None, user: str, config: Path | None
) -> int:
    """Print the commands that let USER work on one SIDE of a job."""
    from fsrep_core.ops.commands.zfs import allow as work
    from fsrep_core.values import Side

    return work(Side(side), job, identity, user, config)


@zfs.group("abstractions")
def zfs_abstractions() -> None:
    """See what fsrep has left on the pools of this host: cursors, holds, placeholders."""


@zfs_abstractions.command("list")
@_place_options
@_config_option
def zfs_list(job: str | None, identity: str | None, config: Path | None) -> int:
    """List cursors, holds and placeholders, and which of them are stale."""
    from fsrep_core.ops.commands.zfs import list_abstractions as work

    return work(job, identity, config)


@zfs_abstractions.command("release-stale")
@_place_options
@click.option(
    "--gone",
    metavar="NAME",
    multiple=True,
    help="A job that does not exist any more, on any host; may be given several times.",
)
@_config_option
def zfs_release_stale(
    job: str | None, identity: str | None, gone: tuple[str, ...], config: Path | None
) -> int:
    """Remove what is stale."""
    from fsrep_core.ops.commands.zfs import release_stale as work

    return work(job, identity, gone, config)


@cli.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print what makes a shell complete fsrep's commands and jobs.

    For bash, put this into ~/.bashrc: eval "$(fsrep completion bash)"
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None  # noqa: S101  (click knows all three)
    click.echo(made(cli, {}, "fsrep", "_FSREP_COMPLETE").source())
    return 0


class _OutputLostError(Exception):
    """Standard output cannot be written."""


class _StandardOutput(io.TextIOWrapper):
    """Tells that the output is lost apart from every other error of the system."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as exc:
            raise _OutputLostError from exc

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as exc:
            raise _OutputLostError from exc


def main() -> None:
    """Run the command line and exit."""
    spare_the_start()
    _replace_closed_streams()
    if type(sys.stdout) is io.TextIOWrapper:
        encoding, by_line = sys.stdout.encoding, sys.stdout.line_buffering
        sys.stdout = _StandardOutput(sys.stdout.detach(), encoding, line_buffering=by_line)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may be any bytes
    status = _exit_status()
    spare_the_end()
    sys.exit(status)


def _replace_closed_streams() -> None:
    """Stand in for standard streams that whoever started this has closed.

    Otherwise the next files that are opened get their numbers, and what is meant for a
    person is written there, or fails a run that succeeds.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115  (stays open)
            setattr(sys, name, stream)


def _exit_status() -> int:
    try:
        status = int(cli.main(prog_name="fsrep", standalone_mode=False) or 0)
        sys.stdout.flush()  # what cannot be written must not be found out behind all handlers
    except click.ClickException as exc:
        exc.show()
        return exc.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("fsrep: interrupted", err=True)
        return EXIT_INTERRUPTED
    except _OutputLostError as exc:
        return _tell_lost(exc)
    except Exception as exc:  # noqa: BLE001  (what is not fsrep's is raised again)
        return _tell(exc)
    return status


def _tell_lost(lost: _OutputLostError) -> int:
    """Say that the output is lost, unless whoever read it is gone."""
    with Path(os.devnull).open("wb") as nothing:  # else Python tries again as it ends
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    if isinstance(lost.__cause__, OSError) and not isinstance(lost.__cause__, BrokenPipeError):
        click.echo(f"fsrep: cannot write to standard output: {lost.__cause__.strerror}", err=True)
    return EXIT_FAILED


def _tell(error: Exception) -> int:
    """Print an error of fsrep for people and give the exit status; raise any other."""
    from fsrep_core.errors import ConfigError, FsrepError, PluginError
    from fsrep_core.ops.words import visible

    if not isinstance(error, FsrepError):
        raise error
    lines = error.message.splitlines()
    for line in lines:
        click.echo(f"fsrep: {visible(line)}", err=True)
    if error.hint:
        click.echo(f"    {visible(error.hint)}", err=True)
    if not isinstance(error, ConfigError | PluginError):
        return EXIT_FAILED
    if len(lines) > 1:
        click.echo(f"fsrep: {len(lines)} mistakes; nothing was run", err=True)
    return EXIT_USAGE
