"""What listeners make of a run: lines, bars, logs, metrics and the summary."""

from __future__ import annotations

import io
import json
import logging

import attrs
import pytest
from rich.console import Console

from fsrep_core.errors import ConfigError
from fsrep_core.events import (
    BytesMoved,
    FilesystemFinished,
    FilesystemPlanned,
    RunFinished,
    RunStarted,
    RunStateChanged,
    StepAborted,
    StepFinished,
    StepStarted,
    StepStateChanged,
    Warned,
)
from fsrep_core.ops.bars import BarsListener
from fsrep_core.ops.logs import LogListener, line_of
from fsrep_core.ops.metrics import METRICS, MetricsListener
from fsrep_core.ops.progress import LINE_INTERVAL_SECONDS, LinesListener
from fsrep_core.ops.summary import headline, print_summary
from fsrep_core.reports import ReplicationReport, RunReport, StepReport
from fsrep_core.runtime.context import bind
from fsrep_core.values import Problem, Version, VersionKind

MIB = 1 << 20


class Clock:
    """Time that moves only when it is told to."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def version(name: str, order: int = 1) -> Version:
    return Version(VersionKind.SNAPSHOT, name, f"guid-{name}", order, 900.0 + order)


BROKEN = Problem(message="the disk is full", temporary=True, local=True, hint="make room")
PENDING = StepReport(
    from_version=version("a"),
    to_version=version("b", 2),
    status="replication-ready",
    expected_bytes=10 * MIB,
)
STARTED = attrs.evolve(PENDING, started_at=1000.0)
HALFWAY = attrs.evolve(STARTED, transferred_bytes=5 * MIB)
DONE = attrs.evolve(STARTED, status="completed", transferred_bytes=10 * MIB, finished_at=1004.0)
FAILED = attrs.evolve(HALFWAY, problem=BROKEN)
READY = ReplicationReport(
    filesystem="docs", status="ready", newest_common=version("a"), pending=(PENDING,)
)
FINISHED = attrs.evolve(
    READY, status="completed", newest_common=version("b", 2), pending=(), completed=(DONE,)
)
BROKEN_FS = attrs.evolve(READY, problem=BROKEN, pending=(FAILED,))
IDLE = ReplicationReport(filesystem="idle", status="completed", newest_common=version("a"))
REPORT = RunReport(
    job="j", status="completed", started_at=1000.0, finished_at=1005.0, completed=(FINISHED, IDLE)
)
FAILED_REPORT = attrs.evolve(
    REPORT, status="permanent-error", problem=BROKEN, completed=(IDLE,), pending=(BROKEN_FS,)
)

GOOD_RUN = (
    RunStarted(job="j"),
    FilesystemPlanned(job="j", replication=READY),
    FilesystemPlanned(job="j", replication=IDLE),
    StepStarted(job="j", filesystem="docs", step=STARTED),
    BytesMoved(job="j", filesystem="docs", step=HALFWAY, new_bytes=5 * MIB),
    BytesMoved(job="j", filesystem="docs", step=DONE, new_bytes=5 * MIB),
    StepStateChanged(job="j", filesystem="docs", step=DONE, from_state="replication-ready"),
    StepFinished(job="j", filesystem="docs", step=DONE),
    FilesystemFinished(job="j", replication=FINISHED),
    RunFinished(job="j", report=REPORT),
)
BAD_RUN = (
    *GOOD_RUN[:5],
    StepFinished(job="j", filesystem="docs", step=FAILED),
    FilesystemFinished(job="j", replication=BROKEN_FS),
    RunStateChanged(
        job="j",
        from_state="working",
        to_state="working-wait",
        attempt=1,
        problem=BROKEN,
        sleep_seconds=12.0,
    ),
    Warned(job="j", message="odd", filesystem="docs"),
    Warned(job="j", message="odder"),
    RunFinished(job="j", report=FAILED_REPORT),
)
ABORTED = StepAborted(job="j", filesystem="docs", step=HALFWAY)


def tell(listener, events) -> None:
    for event in events:
        listener.observe(event)


# --- lines --------------------------------------------------------------------------------


def test_lines_tell_each_step_when_it_ends(capsys):
    tell(LinesListener(Clock()), GOOD_RUN)

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "j: docs@a => @b: 10.0 MiB in 4s, 2.5 MiB/s\n"


def test_lines_tell_failures_and_waits(capsys):
    tell(LinesListener(Clock()), BAD_RUN)

    assert capsys.readouterr().err.splitlines() == [
        "j: docs@a => @b: failed: the disk is full",
        "j: trying again in 12s: the disk is full",
    ]


def test_lines_tell_a_step_that_was_aborted(capsys):
    tell(LinesListener(Clock()), (*GOOD_RUN[:5], ABORTED))

    assert capsys.readouterr().err == "j: docs@a => @b: aborted after 5.0 MiB of 10.0 MiB\n"


def test_lines_tell_now_and_then_how_far_a_long_step_is(capsys):
    clock = Clock()
    listener = LinesListener(clock)
    tell(listener, GOOD_RUN[:4])
    told = []
    for seconds in (1, LINE_INTERVAL_SECONDS, 1, LINE_INTERVAL_SECONDS - 2, 1):
        clock.now += seconds
        tell(listener, GOOD_RUN[4:5])
        told.append(capsys.readouterr().err)

    line = "j: docs@a => @b: 5.0 MiB of 10.0 MiB\n"
    assert told == ["", line, "", "", line]


def test_lines_do_not_invent_a_size(capsys):
    clock = Clock()
    listener = LinesListener(clock)
    tell(listener, GOOD_RUN[:4])
    clock.now += LINE_INTERVAL_SECONDS
    unknown = attrs.evolve(HALFWAY, expected_bytes=None)
    tell(listener, [BytesMoved(job="j", filesystem="docs", step=unknown, new_bytes=1)])

    assert capsys.readouterr().err == "j: docs@a => @b: 5.0 MiB\n"


# --- bars ---------------------------------------------------------------------------------


def drawn(events, *, width: int = 100, height: int = 20, seconds_apart: float = 0.0) -> str:
    """Draw what is on the screen after these events."""
    clock = Clock()
    console = Console(
        file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None
    )
    listener = BarsListener(console, clock)
    for event in events:
        clock.now += seconds_apart
        listener.observe(event)
    if listener._progress is None:
        return console.file.getvalue()
    listener._progress.stop()
    with console.capture() as capture:
        console.print(listener._progress.get_renderable())
    return capture.get()


def test_bars_show_the_step_in_hand_and_the_job():
    job, step = drawn(GOOD_RUN[:5]).splitlines()

    assert job.split()[0] == "j"
    assert "0/1 step" in job
    assert "docs@a => @b" in step
    assert "5.0 MiB/10.0 MiB" in step


def test_bars_show_the_rate_and_the_remaining_time():
    moves = [
        BytesMoved(
            job="j",
            filesystem="docs",
            step=attrs.evolve(STARTED, transferred_bytes=mib * MIB),
            new_bytes=2 * MIB,
        )
        for mib in (2, 4, 6)
    ]

    job, step = drawn((*GOOD_RUN[:4], *moves), seconds_apart=4.0).splitlines()

    assert "512 KiB/s" in step
    assert step.rstrip().endswith("8s left")
    assert job.rstrip().endswith("12s")


def test_bars_are_not_drawn_for_a_run_with_nothing_to_do():
    idle = RunFinished(job="j", report=attrs.evolve(REPORT, completed=(IDLE,)))

    assert drawn((GOOD_RUN[0], GOOD_RUN[2], idle)) == ""


def test_bars_disappear_and_failures_stay():
    screen = drawn(BAD_RUN)

    assert "j: docs@a => @b: failed: the disk is full\n" in screen
    assert "j: trying again in 12s: the disk is full\n" in screen


def test_the_bar_of_a_step_that_was_aborted_disappears():
    (job,) = drawn((*GOOD_RUN[:5], ABORTED)).splitlines()
    again = drawn((*GOOD_RUN[:5], ABORTED, *GOOD_RUN[1:4])).splitlines()

    assert "0/1 step" in job
    assert len(again) == 2


def test_bars_never_overflow_the_screen():
    events = [StepStarted(job="j", filesystem=f"fs{number}", step=STARTED) for number in range(50)]

    lines = drawn((*GOOD_RUN[:2], *events), height=12).splitlines()

    assert len(lines) <= 12 - 2


@pytest.mark.parametrize("width", [30, 45, 60, 200])
def test_bars_fit_into_any_width(width):
    name = "a/very/long/name/" * 10
    started = StepStarted(job="j", filesystem=name, step=STARTED)

    lines = drawn((*GOOD_RUN[:5], started), width=width).splitlines()

    assert all(len(line) <= width for line in lines)
    assert len(lines) == 3


# --- logs ---------------------------------------------------------------------------------


@pytest.fixture
def log(capsys):
    """Log events as JSON and give what was written; the root logger is left as it was."""
    root = logging.getLogger()
    before = list(root.handlers)

    def write(events, *, level="debug", form="json"):
        listener = LogListener(form, level)
        tell(listener, events)
        return capsys.readouterr().err

    yield write
    root.handlers[:] = before


def test_logs_carry_job_filesystem_and_step(log):
    lines = [json.loads(line) for line in log(GOOD_RUN).splitlines()]

    assert [line["event"] for line in lines] == [
        "run started",
        "filesystem planned",
        "filesystem planned",
        "step started",
        "step finished",
        "run finished",
    ]
    assert all(line["job"] == "j" for line in lines)
    finished = lines[4]
    assert finished["filesystem"] == "docs"
    assert finished["step"] == "docs@a => @b"
    assert finished["bytes"] == 10 * MIB
    assert finished["seconds"] == 4.0
    assert finished["level"] == "info"


def test_logs_tell_a_step_that_was_aborted(log):
    *_, started, aborted = log((*GOOD_RUN[:5], ABORTED)).splitlines()

    assert json.loads(started)["event"] == "step started"
    line = json.loads(aborted)
    assert (line["level"], line["event"], line["bytes"]) == ("info", "step aborted", 5 * MIB)


def test_logs_tell_problems_with_their_hint(log):
    lines = [json.loads(line) for line in log(BAD_RUN, level="warning").splitlines()]

    assert [(line["level"], line["event"]) for line in lines] == [
        ("warning", "step failed"),
        ("warning", "run waits"),
        ("warning", "odd"),
        ("warning", "odder"),
        ("error", "run failed"),
    ]
    assert lines[0]["problem"] == "the disk is full"
    assert lines[0]["hint"] == "make room"
    assert lines[1]["sleep_seconds"] == 12.0
    assert lines[2]["filesystem"] == "docs"
    assert "filesystem" not in lines[3]
    assert lines[4]["failed"] == ["docs"]


def test_logs_for_people_let_no_control_character_through(log):
    hostile = Warned(job="j", message="\x1b[2Jgone", filesystem="a\nb")

    text = log([hostile], form="console")

    assert "\x1b" not in text
    assert "\\x1b[2Jgone" in text
    assert text.count("\n") == 1


def test_a_conflict_and_an_interruption_have_lines_of_their_own():
    conflict = FilesystemPlanned(job="j", replication=attrs.evolve(IDLE, problem=BROKEN))
    cut = RunFinished(job="j", report=attrs.evolve(REPORT, status="working"), interrupted=True)

    assert (line_of(conflict).level, line_of(conflict).message) == ("error", "conflict")
    assert (line_of(cut).level, line_of(cut).message) == ("warning", "run interrupted")
    assert line_of(GOOD_RUN[4]) is None


def test_lines_of_plugins_are_taken_in_with_what_their_task_works_on(log, capsys):
    log([], level="info")
    with bind(job="j", filesystem="docs", step="s"):
        logging.getLogger("plugin").warning("slow %s", "disk")
        logging.getLogger("plugin").debug("noise")
        logging.getLogger("plugin").critical("dead disk")

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["slow disk", "dead disk"]
    assert lines[0]["filesystem"] == "docs"
    assert lines[0]["logger"] == "plugin"
    assert lines[1]["level"] == "error"


# --- metrics ------------------------------------------------------------------------------


def samples(path) -> dict[str, float]:
    """Read the file as node-exporter would: name and labels to value."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


DOCS = '{filesystem="docs",job="j"}'


def test_metrics_of_a_run(tmp_path):
    path = tmp_path / "fsrep.prom"
    tell(MetricsListener(path, Clock(1005.0)), GOOD_RUN)

    found = samples(path)
    assert found[f"fsrep_replicated_bytes_total{DOCS}"] == 10 * MIB
    assert found[f"fsrep_steps_completed_total{DOCS}"] == 1
    assert found[f"fsrep_steps_failed_total{DOCS}"] == 0
    assert found[f"fsrep_pending_steps{DOCS}"] == 0
    assert found[f"fsrep_pending_bytes{DOCS}"] == 0
    assert found[f"fsrep_filesystem_failed{DOCS}"] == 0
    assert found[f"fsrep_newest_replicated_timestamp_seconds{DOCS}"] == 902.0
    assert found[f"fsrep_lag_seconds{DOCS}"] == 103.0
    assert found['fsrep_last_run_success{job="j"}'] == 1
    assert found['fsrep_last_run_duration_seconds{job="j"}'] == 5.0
    assert found['fsrep_last_success_timestamp_seconds{job="j"}'] == 1005.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["fsrep.prom"]


def test_a_step_that_was_aborted_is_neither_completed_nor_failed(tmp_path):
    path = tmp_path / "fsrep.prom"
    tell(MetricsListener(path, Clock()), (*GOOD_RUN[:5], ABORTED, BAD_RUN[-1]))

    found = samples(path)
    assert found[f"fsrep_steps_completed_total{DOCS}"] == 0
    assert found[f"fsrep_steps_failed_total{DOCS}"] == 0


def test_counters_go_on_and_the_last_success_stays_known(tmp_path):
    path = tmp_path / "fsrep.prom"
    tell(MetricsListener(path, Clock(1005.0)), GOOD_RUN)
    tell(MetricsListener(path, Clock(2005.0)), BAD_RUN)

    found = samples(path)
    assert found[f"fsrep_replicated_bytes_total{DOCS}"] == 15 * MIB
    assert found[f"fsrep_steps_completed_total{DOCS}"] == 1
    assert found[f"fsrep_steps_failed_total{DOCS}"] == 1
    assert found[f"fsrep_pending_steps{DOCS}"] == 1
    assert found[f"fsrep_pending_bytes{DOCS}"] == 10 * MIB
    assert found[f"fsrep_filesystem_failed{DOCS}"] == 1
    assert found['fsrep_last_run_success{job="j"}'] == 0
    assert found['fsrep_last_success_timestamp_seconds{job="j"}'] == 1005.0


def test_other_jobs_keep_their_series_and_lag_grows(tmp_path):
    path = tmp_path / "fsrep.prom"
    tell(MetricsListener(path, Clock(1005.0)), GOOD_RUN)
    other = RunFinished(job="k", report=attrs.evolve(REPORT, job="k", completed=()))
    tell(MetricsListener(path, Clock(1105.0)), [other])

    found = samples(path)
    assert found[f"fsrep_lag_seconds{DOCS}"] == 203.0
    assert found['fsrep_last_run_success{job="k"}'] == 1


def test_a_filesystem_that_is_gone_leaves_no_gauge_behind(tmp_path):
    path = tmp_path / "fsrep.prom"
    tell(MetricsListener(path, Clock()), GOOD_RUN)
    without = RunFinished(job="j", report=attrs.evolve(REPORT, completed=(IDLE,)))
    tell(MetricsListener(path, Clock()), [without])

    found = samples(path)
    assert f"fsrep_pending_steps{DOCS}" not in found
    assert f"fsrep_newest_replicated_timestamp_seconds{DOCS}" not in found
    assert f"fsrep_lag_seconds{DOCS}" not in found
    assert f"fsrep_replicated_bytes_total{DOCS}" in found


@pytest.mark.parametrize(
    "unknown",
    [
        ReplicationReport(filesystem="docs", status="completed", problem=BROKEN),
        attrs.evolve(READY, newest_common=None),
        attrs.evolve(READY, newest_common=attrs.evolve(version("a"), created=None)),
    ],
    ids=["conflict", "nothing-common", "no-date"],
)
def test_the_lag_of_a_filesystem_grows_while_nobody_knows_its_newest_version(tmp_path, unknown):
    path = tmp_path / "fsrep.prom"
    tell(MetricsListener(path, Clock(1005.0)), GOOD_RUN)
    for now in (2005.0, 3005.0):
        events = [
            FilesystemPlanned(job="j", replication=unknown),
            RunFinished(job="j", report=attrs.evolve(FAILED_REPORT, pending=(unknown,))),
        ]
        tell(MetricsListener(path, Clock(now)), events)

    found = samples(path)
    assert found[f"fsrep_newest_replicated_timestamp_seconds{DOCS}"] == 902.0
    assert found[f"fsrep_lag_seconds{DOCS}"] == 3005.0 - 902.0


def test_a_version_that_is_common_again_may_be_older(tmp_path):
    path = tmp_path / "fsrep.prom"
    tell(MetricsListener(path, Clock()), GOOD_RUN)
    tell(MetricsListener(path, Clock()), BAD_RUN)

    assert samples(path)[f"fsrep_newest_replicated_timestamp_seconds{DOCS}"] == 901.0


def test_an_unknown_size_is_no_metric(tmp_path):
    path = tmp_path / "fsrep.prom"
    unknown = attrs.evolve(READY, pending=(attrs.evolve(PENDING, expected_bytes=None),))
    tell(MetricsListener(path, Clock()), [FilesystemPlanned(job="j", replication=unknown)])
    tell(
        MetricsListener(path, Clock()),
        [RunFinished(job="j", report=attrs.evolve(FAILED_REPORT, pending=(unknown,)))],
    )

    found = samples(path)
    assert found[f"fsrep_pending_steps{DOCS}"] == 1
    assert f"fsrep_pending_bytes{DOCS}" not in found


def test_bytes_are_in_the_file_while_they_move(tmp_path):
    path, clock = tmp_path / "fsrep.prom", Clock()
    listener = MetricsListener(path, clock)
    tell(listener, GOOD_RUN[:5])
    assert f"fsrep_replicated_bytes_total{DOCS}" not in samples(path)

    clock.now += 15
    tell(listener, GOOD_RUN[5:6])

    assert samples(path)[f"fsrep_replicated_bytes_total{DOCS}"] == 10 * MIB


def test_every_metric_has_a_help_and_a_type(tmp_path):
    path = tmp_path / "fsrep.prom"
    MetricsListener(path)

    text = path.read_text()
    for name in METRICS:
        assert f"# HELP {name} " in text
        assert f"# TYPE {name} " in text


def test_a_metrics_file_that_cannot_be_is_refused_before_anything_runs(fsrep, job):
    fsrep("snapshot", "--name", "one")
    foreign = job.root / "foreign.prom"
    foreign.write_text("{ this is no metrics file")

    for path in (job.root / "no" / "fsrep.prom", foreign):
        ended = fsrep("run", "--metrics-file", path)
        assert ended.status == 2
        assert str(path) in ended.err
    assert foreign.read_text() == "{ this is no metrics file"
    assert not (job.receiver / ".fsrep" / "docs").exists()
    with pytest.raises(ConfigError):
        MetricsListener(foreign)


def test_a_metrics_file_that_fails_later_is_told_and_tried_again(tmp_path, capsys):
    path = tmp_path / "there" / "fsrep.prom"
    path.parent.mkdir()
    listener = MetricsListener(path, Clock())
    path.unlink()
    path.parent.rmdir()
    tell(listener, GOOD_RUN)

    assert capsys.readouterr().err == (
        f"fsrep: the metrics file {path} cannot be written: No such file or directory\n"
    )
    path.parent.mkdir()
    tell(listener, GOOD_RUN)
    assert samples(path)[f"fsrep_replicated_bytes_total{DOCS}"] == 20 * MIB


def test_a_run_writes_metrics(fsrep, job):
    fsrep("snapshot", "--name", "one")

    assert fsrep("run", "--metrics-file", "fsrep.prom").status == 0

    found = samples(job.root / "fsrep.prom")
    assert found['fsrep_last_run_success{job="documents"}'] == 1
    assert found['fsrep_replicated_bytes_total{filesystem="docs",job="documents"}'] > 0


def test_the_lag_is_in_the_file_of_later_runs_that_cannot_read_a_filesystem(fsrep, job):
    series = 'fsrep_newest_replicated_timestamp_seconds{filesystem="docs",job="documents"}'
    path = job.root / "fsrep.prom"
    fsrep("snapshot", "--name", "one")
    fsrep("run", "--metrics-file", path)
    before = samples(path)[series]
    (job.sender / ".fsrep" / "docs" / "@one" / "version.json").write_text("damaged")
    for _ in range(2):
        assert fsrep("run", "--metrics-file", path).status == 1

    found = samples(path)
    assert found[series] == before
    assert found['fsrep_filesystem_failed{filesystem="docs",job="documents"}'] == 1


def test_a_run_logs_instead_of_showing_progress(fsrep, job):
    fsrep("snapshot", "--name", "one")
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        ended = fsrep("run", "--log-format", "json", "--log-level", "info")
    finally:
        root.handlers[:] = before

    events = [json.loads(line)["event"] for line in ended.err.splitlines()]
    assert events == ["run started", *["step started", "step finished"] * 2, "run finished"]


# --- the summary --------------------------------------------------------------------------


def summary(capsys, report, *, interrupted=False) -> str:
    print_summary(report, interrupted=interrupted)
    return capsys.readouterr().out


def test_the_summary_lists_what_was_done(capsys):
    assert summary(capsys, REPORT).splitlines() == [
        "j: replicated, 2 of 2 filesystems up to date, 10.0 MiB in 5s",
        "filesystem  steps     bytes       rate  result",
        "docs            1  10.0 MiB  2.5 MiB/s  replicated",
    ]


def test_the_summary_tells_problems_in_full_and_once(capsys):
    assert summary(capsys, FAILED_REPORT).splitlines() == [
        "j: failed, 1 of 2 filesystems up to date, 5.0 MiB in 5s",
        "filesystem  steps    bytes  rate  result",
        "docs          0/1  5.0 MiB     -  failed",
        "docs: the disk is full",
        "    make room",
    ]


def test_the_summary_tells_what_is_not_one_filesystems_matter(capsys):
    cut = Problem(message="cannot reach nas", temporary=True, local=False)
    report = attrs.evolve(
        FAILED_REPORT,
        problem=cut,
        warnings=("odd",),
        completed=(attrs.evolve(IDLE, warnings=("strange",)),),
    )

    lines = summary(capsys, report).splitlines()

    assert lines[3:] == [
        "warning: odd",
        "warning: idle: strange",
        "j: cannot reach nas",
        "docs: the disk is full",
        "    make room",
    ]


def test_an_interrupted_run_says_so(capsys):
    report = attrs.evolve(REPORT, status="working", completed=(IDLE,), pending=(READY,))

    lines = summary(capsys, report, interrupted=True).splitlines()

    assert lines[0] == "j: interrupted, 1 of 2 filesystems up to date, 0 B in 5s"
    assert lines[2].split() == ["docs", "0/1", "0", "B", "-", "interrupted"]


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (attrs.evolve(REPORT, completed=()), "j: no filesystem to replicate"),
        (
            attrs.evolve(REPORT, completed=(IDLE,)),
            "j: nothing to do; 1 filesystem up to date",
        ),
        (RunReport(job="j", status="planning"), "j: not started"),
        (
            attrs.evolve(REPORT, status="permanent-error", completed=()),
            "j: failed, 0 B in 5s",
        ),
    ],
)
def test_headlines(report, text):
    assert headline(report, interrupted=True) == text
