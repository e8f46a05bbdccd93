"""Metrics of a run, as a file for node-exporter's textfile collector.

The file is replaced atomically when a run ends, and now and then while bytes move. A
run is one short process, so what it does not set is carried over from the file that is
there: counters go on counting, the last success stays known after a failure, and the
other jobs keep their series.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fsrep_core.errors import ConfigError
from fsrep_core.events import (
    BytesMoved,
    Event,
    ExpiriesKnown,
    FilesystemFinished,
    FilesystemPlanned,
    RunFinished,
    StepFinished,
)
from fsrep_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from fsrep_core.reports import ReplicationReport, RunReport
    from fsrep_core.transports import Expiry

__all__ = ["METRICS", "MetricsListener"]

NO_JOB = ""
"""The label of what a server says: Prometheus takes an empty one for none."""

WRITE_INTERVAL_SECONDS = 15.0
"""How often the file is written while a run goes on."""

BY_FILESYSTEM = ("job", "filesystem")
BY_JOB = ("job",)
BY_NEED = ("job", "what")


@attrs.frozen
class _Described:
    """One metric: what it is and which labels it has."""

    kind: type[CounterMetricFamily | GaugeMetricFamily]
    labels: tuple[str, ...]
    help: str


METRICS: Mapping[str, _Described] = {
    "fsrep_replicated_bytes_total": _Described(
        CounterMetricFamily, BY_FILESYSTEM, "Bytes moved, also by steps that failed."
    ),
    "fsrep_steps_completed_total": _Described(
        CounterMetricFamily, BY_FILESYSTEM, "Steps completed."
    ),
    "fsrep_steps_failed_total": _Described(
        CounterMetricFamily, BY_FILESYSTEM, "Attempts of steps that failed."
    ),
    "fsrep_pending_steps": _Described(
        GaugeMetricFamily, BY_FILESYSTEM, "Steps that are still to be done."
    ),
    "fsrep_pending_bytes": _Described(
        GaugeMetricFamily, BY_FILESYSTEM, "Estimated bytes of the pending steps, where known."
    ),
    "fsrep_filesystem_failed": _Described(
        GaugeMetricFamily, BY_FILESYSTEM, "1 if the filesystem has a problem, else 0."
    ),
    "fsrep_newest_replicated_timestamp_seconds": _Described(
        GaugeMetricFamily, BY_FILESYSTEM, "When the newest version that both sides have was made."
    ),
    "fsrep_lag_seconds": _Described(
        GaugeMetricFamily,
        BY_FILESYSTEM,
        "Age of the newest version that both sides have, when the file was written.",
    ),
    "fsrep_expiry_timestamp_seconds": _Described(
        GaugeMetricFamily,
        BY_NEED,
        "When something that the job needs ends, such as a certificate; without a job, that a "
        "server needs.",
    ),
    "fsrep_last_run_timestamp_seconds": _Described(
        GaugeMetricFamily, BY_JOB, "When the last run ended."
    ),
    "fsrep_last_run_duration_seconds": _Described(
        GaugeMetricFamily, BY_JOB, "How long the last run took."
    ),
    "fsrep_last_run_success": _Described(
        GaugeMetricFamily, BY_JOB, "1 if the last run replicated everything, else 0."
    ),
    "fsrep_last_success_timestamp_seconds": _Described(
        GaugeMetricFamily, BY_JOB, "When a run last replicated everything."
    ),
}
"""Every metric, by its name in the file."""

_OF_NOW = tuple(
    name
    for name, described in METRICS.items()
    if described.kind is GaugeMetricFamily and described.labels == BY_FILESYSTEM
)
"""What a finished run says anew of each filesystem; nothing older may remain, but for one."""

NEWEST = "fsrep_newest_replicated_timestamp_seconds"
"""Stays what it was where a run cannot say it anew: an alert on its age must not fall silent."""

_Series = dict[tuple[str, ...], float]


class _Samples(Collector):
    """All samples, by metric and labels."""

    def __init__(self) -> None:
        self.series: dict[str, _Series] = {name: {} for name in METRICS}

    def add(self, name: str, labels: tuple[str, ...], amount: float) -> None:
        self.set(name, labels, self.series[name].get(labels, 0.0) + amount)

    def set(self, name: str, labels: tuple[str, ...], value: float) -> None:
        self.series[name][labels] = value

    def forget(self, job: str, still_there: Container[str]) -> None:
        """Drop what was said of the filesystems of a job as they were then."""
        newest = self.series[NEWEST].items()
        kept = {each: value for each, value in newest if each[0] == job and each[1] in still_there}
        for name in _OF_NOW:
            self.drop(name, job)
        self.series[NEWEST].update(kept)

    def drop(self, name: str, job: str) -> None:
        """Drop what one metric says of a job."""
        series = self.series[name]
        self.series[name] = {labels: value for labels, value in series.items() if labels[0] != job}

    def collect(self) -> Iterator[Metric]:
        for name, described in METRICS.items():
            family = described.kind(name, described.help, labels=described.labels)
            for labels, value in sorted(self.series[name].items()):
                family.add_metric(labels, value)
            yield family

    def carry_over(self, text: str) -> None:
        """Take the samples of an earlier file; what is not ours is left out."""
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                described = METRICS.get(sample.name)
                if described is not None and set(sample.labels) == set(described.labels):
                    labels = tuple(sample.labels[label] for label in described.labels)
                    self.series[sample.name][labels] = sample.value


@attrs.define(eq=False)
class MetricsListener:
    """Keeps a metrics file.

    :raises ConfigError: the file cannot be written, or is there and is no metrics file
    """

    path: Path
    clock: Callable[[], float] = time.time
    _samples: _Samples = attrs.field(init=False, factory=_Samples)
    _registry: CollectorRegistry = attrs.field(
        init=False, factory=lambda: CollectorRegistry(auto_describe=False)
    )
    _written_at: float = attrs.field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self._registry.register(self._samples)
        try:
            if self.path.exists():
                self._samples.carry_over(self.path.read_text())
            self._write()
        except OSError as exc:
            raise ConfigError(
                f"the metrics file {self.path} cannot be written: {exc.strerror}",
                hint="its directory must exist, and you must be allowed to write there",
            ) from exc
        except ValueError as exc:
            raise ConfigError(
                f"{self.path} is there and is no metrics file: {exc}",
                hint="name another file, or remove that one",
            ) from exc

    @hookimpl
    def observe(self, event: Event) -> None:
        """Count what an event tells."""
        match event:
            case BytesMoved():
                labels = (event.job, event.filesystem)
                self._samples.add("fsrep_replicated_bytes_total", labels, event.new_bytes)
                if self.clock() - self._written_at >= WRITE_INTERVAL_SECONDS:
                    self._write_or_tell()
            case StepFinished(step=step):
                outcome = "completed" if step.problem is None else "failed"
                labels = (event.job, event.filesystem)
                self._samples.add(f"fsrep_steps_{outcome}_total", labels, 1)
            case FilesystemPlanned(replication=replication):
                self._describe(event.job, replication)
            case FilesystemFinished(replication=replication):
                self._describe(event.job, replication)
            case ExpiriesKnown():
                self._set_expiries(event.job, event.expiries)
            case RunFinished():
                self._finish(event.report)
            case _:
                pass

    def write_server(self, expiries: Iterable[Expiry]) -> None:
        """Write when something ends that a server needs."""
        self._set_expiries(NO_JOB, expiries)
        self._write_or_tell()

    def _set_expiries(self, job: str, expiries: Iterable[Expiry]) -> None:
        self._samples.drop("fsrep_expiry_timestamp_seconds", job)
        for each in expiries:
            labels = (job, each.what)
            self._samples.set("fsrep_expiry_timestamp_seconds", labels, each.expires_at)

    def _describe(self, job: str, replication: ReplicationReport) -> None:
        labels = (job, replication.filesystem)
        say = self._samples.set
        for name in ("replicated_bytes", "steps_completed", "steps_failed"):
            self._samples.add(f"fsrep_{name}_total", labels, 0)  # a series begins at zero
        sizes = [step.expected_bytes for step in replication.pending]
        say("fsrep_pending_steps", labels, len(sizes))
        if None not in sizes:
            say("fsrep_pending_bytes", labels, sum(size or 0 for size in sizes))
        say("fsrep_filesystem_failed", labels, replication.problem is not None)
        newest = replication.newest_common
        if newest is not None and newest.created is not None:
            say(NEWEST, labels, newest.created)

    def _finish(self, report: RunReport) -> None:
        now, labels = self.clock(), (report.job,)
        if report.replications:  # a run that could not plan knows nothing newer
            still_there = {each.filesystem for each in report.replications}
            self._samples.forget(report.job, still_there)
        for replication in report.replications:
            self._describe(report.job, replication)
        success = report.status == "completed"
        self._samples.set("fsrep_last_run_timestamp_seconds", labels, now)
        self._samples.set("fsrep_last_run_success", labels, success)
        if report.started_at is not None:
            duration = max(0.0, now - report.started_at)
            self._samples.set("fsrep_last_run_duration_seconds", labels, duration)
        if success:
            self._samples.set("fsrep_last_success_timestamp_seconds", labels, now)
        self._write_or_tell()

    def _write_or_tell(self) -> None:
        """Write; a disk that is full now must stop neither the run nor later metrics."""
        try:
            self._write()
        except OSError as exc:
            self._written_at = self.clock()
            text = f"fsrep: the metrics file {self.path} cannot be written: {exc.strerror}"
            print(text, file=sys.stderr)  # noqa: T201  (for the person who watches)

    def _write(self) -> None:
        self._refresh_lag()
        write_to_textfile(str(self.path), self._registry)
        self._written_at = self.clock()

    def _refresh_lag(self) -> None:
        """Let the lag of every filesystem be that of now, also of those not in this run."""
        for labels, created in self._samples.series[NEWEST].items():
            self._samples.set("fsrep_lag_seconds", labels, max(0.0, self.clock() - created))
