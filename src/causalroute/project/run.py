"""Runs the workflow in a project folder and tells what happens: one line a step, what a step says of itself while it works, the cause when one fails.

Snakemake writes into a file of the project, which is read as it grows: a terminal that goes away takes no run with it half-way through a line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from causalroute.errors import UserError
from causalroute.project import steps, workflow
from causalroute.project.steps import Event, Step
from causalroute.provenance import RunLock

LOG = Path("logs/workflow.log")
POLL = 0.2
"""Seconds between two looks at the output."""
GRACE = 20.0
"""Seconds that the jobs have to end after Ctrl-C before they are killed."""
TAIL = 12
"""Lines of a log that are shown where it holds no message for users."""


class Stopped(KeyboardInterrupt):
    """The user ended the run and its steps have ended too; everything that was finished is kept."""


class Lines:
    """Progress on a stream: finished steps one a line; on a terminal also, in the last line, what is at work.

    Args:
        stream: where it goes.
        live: whether `stream` is a terminal; None: find out.
    """

    def __init__(self, stream: IO[str] | None = None, live: bool | None = None) -> None:
        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() if live is None else live
        self.shown = ""

    def tell(self, text: str) -> None:
        """One line that stays."""
        self.now("")
        print(text, file=self.stream, flush=True)

    def now(self, text: str) -> None:
        """The line at the bottom of a terminal; nothing elsewhere."""
        if self.live and text != self.shown:
            width = max(20, _columns() - 1)
            self.stream.write(f"\r\x1b[K{text[:width]}")
            self.stream.flush()
            self.shown = text


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError):
        return 100


def duration(seconds: float) -> str:
    """`0.4` -> `0.4 s`, `75` -> `1 min 15 s`, `7300` -> `2 h 1 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest} s"


class Watch:
    """Turns events into lines, and remembers what failed; `counts`: rule -> jobs of the whole run.

    Args:
        folder: of the project.
        lines: where to tell.
        clock: seconds.
    """

    def __init__(self, folder: Path, lines: Lines, clock: Callable[[], float] = time.monotonic) -> None:
        self.folder, self.lines, self.clock = folder, lines, clock
        self.began: dict[str, float] = {}
        self.running: dict[str, Step] = {}
        self.failed: list[Step] = []
        self.ended = self.total = 0
        self.nothing = False
        self.counts: dict[str, int] = {}

    def hear(self, event: Event) -> None:
        """Takes one event in."""
        self.nothing |= event.kind == "nothing"
        self.total = event.total or self.total
        step = event.step
        if step is None:
            return
        if event.kind == "began":
            self.began[step.job], self.running[step.job] = self.clock(), step
            return
        self.running.pop(step.job, None)
        if event.kind == "failed":
            self.failed.append(step)
            return
        self.ended = event.done
        width = len(str(self.total))
        taken = duration(self.clock() - self.began.get(step.job, self.clock()))
        self.lines.tell(f"  [{event.done:>{width}}/{self.total}] {step.words:<48} {taken:>12}")

    def look(self) -> None:
        """Renews the line at the bottom: steps at work, with what the last one of them that counts says of itself."""
        if not self.lines.live or not self.running:
            return
        said = [(step, last_progress(self.folder / step.log)) for step in self.running.values()]
        step, progress = next(((step, text) for step, text in reversed(said) if text), said[-1])
        others = f" (and {len(said) - 1} more)" if len(said) > 1 else ""
        told = progress or f"since {duration(self.clock() - self.began[step.job])}"
        self.lines.now(f"  {self.ended}/{self.total} {step.words}: {told}{others}")


def last_progress(log: Path) -> str:
    """The newest line of a log that counts (`features/progress.py` writes them), or nothing."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 4096))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return next((line for line in reversed(text.splitlines()) if line.endswith(" s left") and "/s, " in line), "")


def run(folder: Path, cores: int, *, more: Sequence[str] = (), lines: Lines | None = None, environment: Mapping[str, str] | None = None) -> Watch:
    """Runs the workflow in `folder` to its end.

    Args:
        folder: of the project.
        cores: how many it may use.
        more: further words of the Snakemake call.
        lines: where to tell (None: standard error).
        environment: variables beside those of this process.

    Returns:
        What happened: `nothing` says that all was up to date.

    Raises:
        UserError: a step failed, settings or files are wrong, or another run is at work in the folder.
        Stopped: Ctrl-C or a signal to end; what was finished is kept.
    """
    shown = lines or Lines()
    watch, reader = Watch(folder, shown), steps.Reader()
    log = folder / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder), log.open("wb") as written, _signals():
        process = subprocess.Popen(
            workflow.command(folder, cores, more), stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1", **(environment or {})},
        )  # fmt: skip
        try:
            _follow(process, log, reader, watch)
        except KeyboardInterrupt:
            shown.tell("stopping ...")
            _end(process)
            raise Stopped from None
        finally:
            _end(process)
    for event in reader.close():
        watch.hear(event)
    shown.now("")
    if process.returncode or watch.failed:
        raise failure(folder, watch, reader)
    watch.counts = reader.counts
    return watch


def _follow(process: subprocess.Popen[bytes], log: Path, reader: steps.Reader, watch: Watch) -> None:
    with log.open("r", encoding="utf-8", errors="replace", newline="\n") as stream:
        rest, over = "", False
        while True:
            over = process.poll() is not None  # asked before reading: what was written until then is read
            rest += stream.read()
            *whole, rest = rest.split("\n")
            for line in whole:
                for event in reader.read(line):
                    watch.hear(event)
            if over or watch.failed:  # the steps beside a failed one are ended as well: encoding and training go on from where they were
                return
            watch.look()
            time.sleep(POLL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts Snakemake and its jobs as Ctrl-C would, so that it removes what is half-written; kills what does not end."""
    for sent in (signal.SIGINT, signal.SIGKILL):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, sent)
            process.wait(GRACE)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One call at a time works in a project: a second one would write into the log that the first one reads."""
    lock = RunLock(folder / ".snakemake" / "train.lock")
    lock.acquire()
    try:
        yield
    finally:
        if lock.handle is not None:
            os.close(lock.handle)


@contextmanager
def _signals() -> Iterator[None]:
    """Lets SIGTERM and SIGHUP end a run as Ctrl-C does, where this is the main thread."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = {}
    try:
        for name in (signal.SIGTERM, signal.SIGHUP):
            before[name] = signal.signal(name, stop)
    except ValueError:  # another thread: a notebook's, a server's
        pass
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def failure(folder: Path, watch: Watch, reader: steps.Reader) -> UserError:
    """The error a user is shown: that of the step itself where it told one, with the path of its log."""
    if reader.unfinished:
        fix = "finish it first: the `causalroute train` command of the project, or `snakemake --cores all` in the folder"
        return UserError("the run is not finished: files that the report is made from are missing", where=str(folder), fix=fix)
    if not watch.failed:
        said = reader.problem or _tail(folder / LOG)
        fix = said.pop().strip().removeprefix("fix:").strip() if said and said[-1].strip().startswith("fix:") else "the log has the whole story"
        return UserError("\n".join(line.rstrip() for line in said) or "the workflow did not start", where=str(folder / LOG), fix=fix)
    step = watch.failed[0]
    log = folder / step.log if step.log else folder / LOG
    text = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    first = next((place for place in range(len(text) - 1, -1, -1) if text[place].startswith("error: ")), None)
    if first is None:
        shown = "\n".join(f"    {line[:200]}" for line in text[-TAIL:])
        return UserError(
            f"the step failed: {step.words}\n{shown}".rstrip(), where=str(log), fix="the log has the whole story; the same command goes on from here"
        )
    told = [text[first].removeprefix("error: "), *text[first + 1 :]]
    return UserError("\n".join(told).rstrip() + f"\n  step:  {step.words}\n  log:   {log}")


def _tail(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:] if log.is_file() else []
