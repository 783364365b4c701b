"""What a user sees of a run: Snakemake's lines read, one line a step, the step's own error when one fails, the answer at the end."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest

from causalroute.errors import UserError
from causalroute.io import write_json
from causalroute.project import answer, run, workflow
from causalroute.project.run import Lines, Watch
from causalroute.project.steps import WORDS, Event, Reader

STARTED = """\
Using workflow specific profile profiles/default for setting default command line arguments.
Building DAG of jobs...
Provided cores: 2
Job stats:
job          count
---------  -------
fetch            1
prepare          1
train            2
all              1
total            5

Select jobs to execute...
Execute 1 jobs...

[Mon Nov 23 11:57:35 2026]
localrule fetch:
    output: data/posts/raw, data/posts/source.json
    log: logs/posts/fetch.log
    jobid: 1
    reason: Missing output files: data/posts/source.json, data/posts/raw
    wildcards: dataset=posts
    resources: tmpdir=/tmp, runtime=240, mem_mb=2000
"""
GONE_ON = """\
[Mon Nov 23 11:57:43 2026]
Finished jobid: 1 (Rule: fetch)
1 of 5 steps (20%) done
Select jobs to execute...
Execute 2 jobs...

[Mon Nov 23 11:57:43 2026]
rule train:
    input: data/posts/manifest.parquet
    output: models/posts/erm/seeds0-1/weights.safetensors
    log: logs/posts/train/erm-0-1.log
    jobid: 22
    benchmark: benchmarks/out/posts/train/erm-0-1.tsv
    reason: Missing output files: models/posts/erm/seeds0-1/weights.safetensors
    wildcards: dataset=posts, method=erm, seeds=0-1
    resources: tmpdir=/tmp, runtime=120, mem_mb=3000
[Mon Nov 23 11:57:43 2026]
rule views:
    log: logs/posts/features/small/single.log
    jobid: 3
    wildcards: dataset=posts, backbone=small, editor=single
    threads: 2
    resources: tmpdir=/tmp
"""
FAILED = """\
RuleException:
CalledProcessError in file "workflow/rules/train.smk", line 23:
Command 'python' returned non-zero exit status 1.
[Mon Nov 23 11:58:05 2026]
Error in rule train:
    message: None
    jobid: 22
    input: data/posts/manifest.parquet
    log: logs/posts/train/erm-0-1.log (check log file(s) for error details)
    shell:
        python -m causalroute.stages.train --dataset posts
        (command exited with non-zero exit code)
Logfile logs/posts/train/erm-0-1.log:
"""


def events(text: str, reader: Reader | None = None) -> list[Event]:
    reader = reader or Reader()
    return [event for line in text.splitlines() for event in reader.read(line)]


def test_a_step_begins_as_soon_as_it_is_announced() -> None:
    counted, began = events(STARTED)
    assert (counted.kind, counted.total) == ("counted", 4)
    assert began.step is not None
    assert (began.kind, began.step.words, began.step.log) == ("began", "bringing the table and its images", "logs/posts/fetch.log")


def test_every_rule_has_words() -> None:
    rules = {name for path in (Path(__file__).parents[2] / "workflow/rules").glob("*.smk") for name in re.findall(r"^rule (\w+):", path.read_text(), re.M)}
    assert set(WORDS) == rules


def test_steps_are_told_in_plain_words() -> None:
    found = events(STARTED + GONE_ON + FAILED)
    assert [event.kind for event in found] == ["counted", "began", "ended", "began", "began", "failed"]
    words = [event.step.words for event in found if event.step]
    assert words == [
        "bringing the table and its images",
        "bringing the table and its images",
        "training erm",
        "encoding counterfactuals (single)",
        "training erm",
    ]
    assert (found[2].done, found[2].total) == (1, 4)


def test_that_all_is_up_to_date_is_heard() -> None:
    assert [event.kind for event in events("Nothing to be done (all requested files are present and up to date).\n")] == ["nothing"]


def watching(tmp_path: Path, text: str, *, live: bool) -> tuple[Watch, Reader, io.StringIO]:
    times = iter(range(0, 1000, 75))
    stream, reader = io.StringIO(), Reader()
    watch = Watch(tmp_path, Lines(stream, live=live), clock=lambda: float(next(times)))
    for event in events(text, reader):
        watch.hear(event)
    return watch, reader, stream


def test_a_pipe_gets_one_line_for_each_finished_step(tmp_path: Path) -> None:
    watch, _, stream = watching(tmp_path, STARTED + GONE_ON, live=False)
    watch.look()
    (line,) = stream.getvalue().splitlines()
    assert line.split() == ["[1/4]", "bringing", "the", "table", "and", "its", "images", "1", "min", "15", "s"]
    assert [step.rule for step in watch.running.values()] == ["train", "views"]


def test_a_terminal_shows_what_the_step_at_work_says(tmp_path: Path) -> None:
    log = tmp_path / "logs/posts/features/small/single.log"
    log.parent.mkdir(parents=True)
    log.write_text("something\nimages: 100/600, 11.0/s, 45 s left\nimages: 120/600, 12.3/s, 39 s left\nanother line\n")
    watch, _, stream = watching(tmp_path, STARTED + GONE_ON, live=True)
    watch.look()
    assert stream.getvalue().endswith("1/4 encoding counterfactuals (single): images: 120/600, 12.3/s, 39 s left (and 1 more)")
    log.write_text("")
    watch.look()
    assert "encoding counterfactuals (single): since " in stream.getvalue().rpartition("\r")[2]


@pytest.mark.parametrize(("seconds", "words"), [(0.44, "0.4 s"), (12.3, "12 s"), (59.6, "1 min 0 s"), (75, "1 min 15 s"), (7300, "2 h 1 min")])
def test_durations_read_well(seconds: float, words: str) -> None:
    assert run.duration(seconds) == words


def told(tmp_path: Path, text: str, log: str) -> str:
    watch, reader, _ = watching(tmp_path, STARTED + text, live=False)
    path = tmp_path / "logs/posts/train/erm-0-1.log"
    path.parent.mkdir(parents=True)
    path.write_text(log)
    (tmp_path / run.LOG).write_text(STARTED + text)
    return str(run.failure(tmp_path, watch, reader))


def test_a_failed_step_tells_its_own_error_and_its_log(tmp_path: Path) -> None:
    said = "a warning\nerror: the split 'valid' is empty\n  where: usable posts: 90 train\n  fix:   give it posts\n"
    lines = told(tmp_path, GONE_ON + FAILED, said).splitlines()
    assert lines[:3] == ["the split 'valid' is empty", "  where: usable posts: 90 train", "  fix:   give it posts"]
    assert lines[3:] == ["  step:  training erm", f"  log:   {tmp_path / 'logs/posts/train/erm-0-1.log'}"]


def test_a_step_that_broke_shows_the_end_of_its_log(tmp_path: Path) -> None:
    text = told(tmp_path, GONE_ON + FAILED, "".join(f"line {n}\n" for n in range(40)) + "MemoryError\n")
    assert "the step failed: training erm" in text
    assert "    line 39\n    MemoryError" in text
    assert "line 20" not in text


def test_what_snakemake_says_of_the_settings_is_passed_on(tmp_path: Path) -> None:
    text = told(tmp_path, "WorkflowError:\ntrain.epoch: unknown key; did you mean 'epochs'?\n  where: params.yaml\n  fix:   correct the keys\n", "")
    assert text.startswith("train.epoch: unknown key; did you mean 'epochs'?")
    assert "fix:   correct the keys" in text
    reader = Reader()
    events('MissingInputException in rule report in file "report.smk", line 1:\nMissing input files for rule report:\n', reader)
    assert "the run is not finished" in str(run.failure(tmp_path, Watch(tmp_path, Lines(io.StringIO())), reader))


def test_two_calls_at_once_are_refused(tmp_path: Path) -> None:
    with run._alone(tmp_path), pytest.raises(UserError, match="another run is at work"), run._alone(tmp_path):
        pass
    with run._alone(tmp_path):
        pass


def test_the_command_names_files_and_profile(tmp_path: Path) -> None:
    words = workflow.command(tmp_path, 3, ["--forcerun", "fetch"])
    assert words[words.index("--directory") + 1] == str(tmp_path)
    assert words[words.index("--cores") + 1] == "3"
    assert Path(words[words.index("--workflow-profile") + 1], "config.yaml").is_file()
    assert words[-2:] == ["--forcerun", "fetch"]
    assert 1 <= workflow.every_core() <= (os.cpu_count() or 1)


def test_the_answer_is_read_from_the_report_files(tmp_path: Path) -> None:
    reports = tmp_path / "reports" / "posts"
    reports.mkdir(parents=True)
    (reports / "results.md").write_text(
        "# posts\n\n- On ID posts `erm`: +0.5 points \\[-4.4, 5.4\\] of a\\_b\u202e.\n- Second.\n\n| method |\n| --- |\n\n- A note.\n"
    )
    assert answer.claims(tmp_path, "posts") == ["On ID posts `erm`: +0.5 points [-4.4, 5.4] of a_b\ufffd.", "Second."]
    cue = {"cue": "#sunny", "kind": "hashtag", "class": "positive", "posts": 59, "share": 0.914}
    joint = {"explained": 0.6, "accuracy": 0.9}
    write_json(reports / "audit.json", {"found": {"shortcuts": 6}, "shortcuts": [cue] * 5, "joint": joint})
    first, second = answer.shortcuts(tmp_path, "posts")
    assert first.startswith("The audit found 6 shortcuts: #sunny (hashtag) goes with positive in 91 % of 59 posts, ")
    assert first.endswith(", and 2 more.")
    assert second.startswith("Together they explain 60 % of the label")
    summary = {"splits": {"train": {"items": 90}, "id": {"items": 30}}, "dropped": {"unknown_label": 2}, "ood": "none: too few"}
    write_json(tmp_path / "data" / "posts" / "summary.json", summary)
    posts, ood = answer.splits(tmp_path, "posts")
    assert posts.startswith("Posts: 90 train, 30 id; left out: 2 unknown_label (")
    assert ood.startswith("No out-of-distribution test: too few.")
    sides = {"passed": True, "verdict": "undecided", "reasons": []}, {"passed": False, "verdict": "failed", "reasons": ["told from real ones"]}
    write_json(tmp_path / "counterfactuals" / "posts" / "single.gate.json", {"text": sides[0], "image": sides[1]})
    (gate,) = answer.gates(tmp_path, "posts")
    assert "those of the text are trained on, though too few" in gate
    assert "those of the image are not good enough to train on: told from real ones" in gate
    assert answer.claims(tmp_path, "other") == answer.shortcuts(tmp_path, "other") == answer.gates(tmp_path, "other") == []
