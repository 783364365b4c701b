"""The training stage: what it writes, that it repeats, that a killed run continues to the same bytes, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from tests import simulated
from tests.conftest import ROOT

from causalroute import io, layout
from causalroute.config import Train
from causalroute.errors import UserError
from causalroute.stages import train
from causalroute.training import job, loop
from causalroute.training.checkpoint import Folder
from causalroute.training.data import TRAIN_VIEWS, Files, load_posts

BUDGET = {"epochs": 5, "batch_size": 64, "lr": 0.01, "hidden": 16}
ROLES = {"train": "train", "valid": "valid"}
OUTPUTS = ("weights.safetensors", "history.csv", "selection.json")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with simulated features."""
    monkeypatch.chdir(tmp_path)
    simulated.write(train=200, valid=60, test=20)
    return tmp_path


def run(method: str = "double_swap", seeds: str = "0-1", budget: dict | None = None, **settings: object) -> dict[str, bytes]:
    """Trains; the output files by name."""
    config = simulated.config(train=budget or BUDGET, method=settings)
    assert train.main(["--dataset", "sim", "--method", method, "--seeds", seeds, "--config", config]) == 0
    first, _, last = seeds.partition("-")
    out = layout.run("sim", method, int(first), int(last))
    assert not (out / ".resume").exists()
    return {name: (out / name).read_bytes() for name in OUTPUTS}


def test_files_of_a_job(folder):
    run()
    out = layout.run("sim", "double_swap", 0, 1)
    tensors, metadata = io.read_tensors(out / "weights.safetensors")
    assert {name.split("/")[0] for name in tensors} == {"seed0", "seed1", "standard"}
    assert metadata["method"] == "double_swap"
    assert not torch.equal(tensors["seed0/network.head.weight"], tensors["seed1/network.head.weight"])
    history = pl.read_csv(out / "history.csv")
    assert history.select("epoch", "seed").rows() == [(epoch, seed) for seed in (0, 1) for epoch in range(1, 6)]
    assert {"train/loss", "valid/loss", "valid/selection", "valid/factual", "valid/text", "valid/image", "valid/both"} <= set(history.columns)
    selection = json.loads((out / "selection.json").read_text())
    for seed in (0, 1):
        rows = history.filter(pl.col("seed") == seed)
        parts = rows.select("valid/factual", "valid/text", "valid/image", "valid/both").mean_horizontal()
        assert parts.to_list() == pytest.approx(rows["valid/selection"].to_list(), abs=1e-5)
        late = rows.filter(pl.col("epoch") > 0.4 * 5).sort("valid/selection", "valid/loss", descending=[True, False])
        assert selection[f"seed{seed}"]["epoch"] == late["epoch"][0]
    events = layout.events("sim", "double_swap", 0, 1)
    assert list((events / "seed0").glob("events.out.tfevents.*"))
    cost = io.read_json(events / "cost.json")
    assert cost["parameters"] == 16 * 49 + 2 * 17
    assert cost["seconds"] > 0


def test_events_hold_the_history(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(seeds="0-0")
    events = EventAccumulator(str(layout.events("sim", "double_swap", 0, 0) / "seed0"))
    events.Reload()
    history = pl.read_csv(layout.run("sim", "double_swap", 0, 0) / "history.csv")
    scalars = events.Scalars("valid/selection")
    assert [event.step for event in scalars] == history["epoch"].to_list()
    assert [event.value for event in scalars] == pytest.approx(history["valid/selection"].to_list(), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["erm", "causal_moe", "bag_of_words", "oracle_erm"])
def test_repeats_to_the_byte_and_a_seed_does_not_depend_on_its_job(method, folder):
    first = run(method)
    assert run(method) == first
    alone = run(method, "1-1")
    both, _ = io.read_tensors(layout.run("sim", method, 0, 1) / "weights.safetensors")
    one, _ = io.read_tensors(layout.run("sim", method, 1, 1) / "weights.safetensors")
    assert json.loads(alone["selection.json"])["seed1"] == json.loads(first["selection.json"])["seed1"]
    assert all(torch.equal(both[name], value) for name, value in one.items())


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours catches it."""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "stop"), [("erm", 4), ("group_dro", 1), ("causal_moe", 7), ("lff", 3), ("jtt", 2), ("clue_text", 6)])
def test_a_run_stopped_between_epochs_continues_to_the_same_bytes(method, stop, folder, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    expected = run(method)
    for name in OUTPUTS:
        (layout.run("sim", method, 0, 1) / name).unlink()
    save, calls = Folder.save_state, []

    def failing(self: Folder, seed: int, state: loop.State) -> None:
        save(self, seed, state)
        calls.append(seed)
        if len(calls) == stop:
            raise Killed

    monkeypatch.setattr(Folder, "save_state", failing)
    with pytest.raises(Killed):
        run(method)
    out = layout.run("sim", method, 0, 1)
    assert (out / ".resume").is_dir()
    assert not (out / "weights.safetensors").exists()
    assert run(method) == expected
    assert len(calls) == 10  # no epoch twice


@pytest.mark.slow
def test_sigkill_at_any_moment(folder):
    budget = BUDGET | {"epochs": 60}
    config = simulated.config(train=budget, method={})
    command = [sys.executable, "-m", "causalroute.stages.train", "--dataset", "sim", "--method", "double_swap", "--seeds", "0-1", "--config", config]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, cwd=folder)
    resume = layout.run("sim", "double_swap", 0, 1) / ".resume"
    limit = time.monotonic() + 60
    while time.monotonic() < limit and process.poll() is None and not (resume / "seed0.done.safetensors").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (resume / "seed0.done.safetensors").exists()
    after_kill = run(budget=budget)
    assert run(budget=budget) == after_kill


def test_a_checkpoint_of_another_job_is_not_taken_up(folder, monkeypatch):
    out = layout.run("sim", "erm", 0, 0)
    expected = run("erm", "0-0")
    stale = Folder(out / ".resume", "another key")
    stale.save_seed(0, {"x": torch.zeros(1)}, {"history": [], "selection": {}, "extra": {}})
    assert run("erm", "0-0") == expected
    (out / ".resume").mkdir()
    (out / ".resume" / "seed0.done.safetensors").write_bytes(b"torn")
    assert run("erm", "0-0") == expected


def test_training_never_opens_the_test_labels(folder):
    layout.test_labels("sim").unlink()
    run("causal_moe", "0-0")


def test_features_are_standardised_with_the_train_split(folder):
    files = Files.of("sim", "b", "estimated")
    posts, standard = load_posts(files, ["train", "valid"], simulated.CLASSES, roles=ROLES, views=TRAIN_VIEWS)
    raw, _ = io.read_tensors(files.factual)
    train_rows = raw["t"][:200].float()
    torch.testing.assert_close(posts.views["t"][:200], (train_rows - train_rows.mean(0)) / train_rows.std(0, correction=0))
    edited, _ = io.read_tensors(files.views)
    torch.testing.assert_close(posts.views["v_swap"][7, 1], (edited["v_swap"][7, 1].float() - standard.v_mean) / standard.v_std)
    assert posts.views["t"].shape == (260, simulated.DIM)
    assert len(posts.train) == 200
    again, _ = load_posts(files, ["valid"], simulated.CLASSES, roles=ROLES, standard=standard)
    assert torch.equal(again.views["t"][:], posts.views["t"][200:])


def test_flags_and_views_follow_the_ids_not_the_rows(folder):
    files = Files.of("sim", "b", "estimated")
    before, _ = load_posts(files, ["train", "valid"], simulated.CLASSES, roles=ROLES, views=("t_s",))
    flags = pl.read_parquet(files.counterfactuals)
    io.write_parquet(files.counterfactuals, flags.reverse())
    tensors, metadata = io.read_tensors(files.views)
    io.write_tensors(files.views, {name: value.flip(0) for name, value in tensors.items()}, metadata)
    after, _ = load_posts(files, ["train", "valid"], simulated.CLASSES, roles=ROLES, views=("t_s",))
    assert torch.equal(before.text_ok, after.text_ok)
    assert torch.equal(before.views["t_s"][:], after.views["t_s"][:])


def test_no_swap_of_a_side_that_failed_the_gate_is_trained_on(folder, caplog):
    files = Files.of("sim", "b", "estimated")
    io.write_json(files.gate, {"text": {"passed": False, "reasons": ["told from real: .99"]}, "image": {"passed": True, "reasons": []}})
    posts, _ = load_posts(files, ["train", "valid"], simulated.CLASSES, roles=ROLES, views=("t_s",))
    assert not posts.text_ok.any()
    assert posts.image_ok.any()
    assert "no text swap is trained on" in caplog.text
    assert "told from real: .99" in caplog.text
    run("double_swap", "0-0")


def load(splits: tuple[str, ...] = ("train", "valid"), editor: str | None = "estimated", classes: tuple[str, ...] = simulated.CLASSES) -> None:
    load_posts(Files.of("sim", "b", editor), splits, classes, roles=ROLES, views=("t_s",) if editor else ())


def test_wrong_inputs_are_told(folder):
    with pytest.raises(UserError, match="'oracle' has no items"):
        load(("train", "oracle"))
    with pytest.raises(UserError, match="label 1 has no name"):
        load(classes=("only",))
    with pytest.raises(UserError, match="no counterfactual features"):
        load(("oracle_train",))
    files = Files.of("sim", "b", "estimated")
    io.write_parquet(files.counterfactuals, pl.read_parquet(files.counterfactuals).head(5))
    with pytest.raises(UserError, match="no counterfactuals"):
        load()
    tensors, _ = io.read_tensors(files.factual)
    io.write_tensors(files.factual, tensors, {"ids_sha256": "other"})
    with pytest.raises(UserError, match="another manifest"):
        load()
    files.factual.unlink()
    with pytest.raises(UserError, match="missing") as error:
        load()
    assert "factual.safetensors" in str(error.value)
    frame = pl.read_parquet(files.manifest).with_columns(pl.lit(None, pl.Int8).alias("label"))
    io.write_parquet(files.manifest, frame)
    simulated_factual = {"ids_sha256": io.sha256_bytes(*(name.encode() for name in frame["id"]))}
    io.write_tensors(files.factual, tensors, simulated_factual)
    with pytest.raises(UserError, match="have no label"):
        load(editor=None)


def test_a_side_that_does_not_exist_has_width_zero(folder):
    files = Files.of("sim", "b", None)
    tensors, metadata = io.read_tensors(files.factual)
    io.write_tensors(files.factual, {"t": tensors["t"]}, metadata)
    run("erm", "0-0")


@pytest.mark.parametrize(("section", "match"), [({"method": {"x": 1}}, "unknown key"), ({"train": {"epoch": 3}}, "did you mean 'epochs'")])
def test_wrong_settings_are_told(section, match, folder):
    config = simulated.config(**({"train": BUDGET, "method": {}} | section))
    with pytest.raises(UserError, match=match):
        train.main(["--dataset", "sim", "--method", "erm", "--seeds", "0-0", "--config", config])


def test_selection_prefers_accuracy_then_loss_then_the_earlier_epoch():
    best = loop.Best(epoch=3, accuracy=0.9, loss=0.5)
    assert best.better(0.91, 9.0)
    assert best.better(0.9, 0.4)
    assert not best.better(0.9, 0.5)
    assert not best.better(0.89, 0.1)


def test_budget_is_respected(folder):
    posts, standard = load_posts(Files.of("sim", "b", None), ["train", "valid"], simulated.CLASSES, roles=ROLES)
    budget = Train(epochs=2, hidden=8)
    work = job.Job("erm", {}, budget, range(1), folder / "out", folder / "events", "key")
    job.run(work, posts, standard)
    assert pl.read_csv(folder / "out" / "history.csv").height == 2


def test_a_lost_run_is_told_and_not_written(folder):
    with pytest.raises(UserError, match="not finite in epoch"):
        run("erm", budget=BUDGET | {"lr": 1e30})
    assert not (layout.run("sim", "erm", 0, 1) / "weights.safetensors").exists()
