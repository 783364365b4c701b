"""What Snakemake says while it works -> which step began, ended or failed, in plain words.

Only lines that Snakemake prints for every job are read; all else it says stays in the log.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

WORDS = {
    "fetch": "bringing the table and its images",
    "prepare": "checking posts, making splits",
    "audit": "searching for shortcuts",
    "pretrain": "training the small backbone",
    "reference": "making the mean image",
    "features": "encoding posts",
    "counterfactuals": "making counterfactuals ({editor})",
    "views": "encoding counterfactuals ({editor})",
    "tokens": "encoding tokens ({views})",
    "gate": "judging counterfactuals ({editor})",
    "grade": "grading counterfactuals",
    "gallery": "showing counterfactuals",
    "search": "choosing settings of {method}",
    "train": "training {method}",
    "evaluate": "testing {method}",
    "report": "writing the report",
    "ablate": "comparing variants",
}
"""Rule -> what it does, with the wildcards of its jobs."""
START = re.compile(r"^(?:local)?(?:checkpoint|rule) (\w+):$")
FIELD = re.compile(r"^ {4}(jobid|log|wildcards): (.*)$")
LAST = "    resources: "
"""The last line of what is told of a job that starts: nothing may follow it until the job ends."""
FINISHED = re.compile(r"^Finished jobid: (\d+)")
DONE = re.compile(r"^(\d+) of (\d+) steps \(\d+%\) done$")
FAILED = re.compile(r"^Error in rule (\w+)(?:, jobid: (\d+))?:?$")
COUNT = re.compile(r"^(\w+) +(\d+)$")
NOTHING = "Nothing to be done"
PROBLEM = re.compile(r"^(?:\w+(?:Error|Exception))\b.*:$|^Error: ")
"""The line before Snakemake's own message of what is wrong with settings or files."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One job."""

    job: str
    """Snakemake's number of it"""
    rule: str
    log: str
    """its log file, relative to the project"""
    wildcards: dict[str, str]

    @property
    def words(self) -> str:
        """What it does."""
        known = {"editor": "", "method": "", "views": ""} | self.wildcards
        return WORDS.get(self.rule, self.rule).format_map(known)


@dataclasses.dataclass(frozen=True)
class Event:
    """`began`, `ended` or `failed`: a step; `counted`: the total is known; `nothing`: all is up to date."""

    kind: str
    step: Step | None = None
    done: int = 0
    total: int = 0


class Reader:
    """Reads Snakemake's output line by line."""

    def __init__(self) -> None:
        self.steps: dict[str, Step] = {}
        self.counts: dict[str, int] = {}
        self.problem: list[str] = []
        """what Snakemake says is wrong with settings or files"""
        self.unfinished = False
        """files that an earlier step makes are missing, and that step may not run"""
        self._block: dict[str, str] | None = None
        self._kind = ""
        self._done = self._total = 0
        self._telling = False

    def read(self, line: str) -> Iterator[Event]:
        """Events that one line, without its line end, completes."""
        if self._block is not None and line.startswith("    "):
            if field := FIELD.match(line):
                self._block.setdefault(field[1], field[2])
            if line.startswith(LAST):
                yield from self._close()
            return
        if self._block is not None:
            yield from self._close()
        yield from self._open(line)

    def close(self) -> Iterator[Event]:
        """Events that the end of the output completes."""
        if self._block is not None:
            yield from self._close()

    def _open(self, line: str) -> Iterator[Event]:
        if started := START.match(line) or FAILED.match(line):
            self._block = {"rule": started[1]}
            self._kind = "failed" if line.startswith("Error") else "began"
            self._telling = False
        elif finished := FINISHED.match(line):
            if finished[1] in self.steps and self.steps[finished[1]].rule != "all":
                self._done += 1
                yield Event("ended", self.steps[finished[1]], self._done, self._total)
        elif counted := COUNT.match(line):
            yield from self._count(counted[1], int(counted[2]))
        elif line.startswith(NOTHING):
            yield Event("nothing")
        else:
            self._hear(line)

    def _count(self, rule: str, count: int) -> Iterator[Event]:
        """A line of the table that Snakemake prints first."""
        if rule == "total":
            self._total = sum(self.counts.values())
            yield Event("counted", total=self._total)
        elif rule in WORDS:
            self.counts[rule] = count

    def _hear(self, line: str) -> None:
        if PROBLEM.match(line):
            self._telling, self.problem = True, [line] if line.startswith("Error: ") else []
            self.unfinished |= line.startswith("MissingInputException")
        elif self._telling and line.strip():
            self.problem.append(line)
        else:
            self._telling = False

    def _close(self) -> Iterator[Event]:
        block, self._block = self._block or {}, None
        wildcards = dict(part.split("=", 1) for part in block.get("wildcards", "").split(", ") if "=" in part)
        log = block.get("log", "").partition(" (check log")[0]
        step = Step(block.get("jobid", ""), block["rule"], log, wildcards)
        if self._kind == "failed":
            yield Event("failed", self.steps.get(step.job, step))
        elif step.rule != "all":
            self.steps[step.job] = step
            yield Event("began", step)
