"""The search of settings: what is tried, by whom it is judged, that it sees validation alone, and that every method has the same budget."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests import simulated

from causalroute import io, layout, methods
from causalroute.config import Dataset, Search, Train, parse
from causalroute.errors import UserError
from causalroute.evaluation.predict import Weights
from causalroute.provenance import constants
from causalroute.report import searched
from causalroute.stages import search as stage
from causalroute.stages import train
from causalroute.training import data, job, search
from causalroute.training.checkpoint import Folder

BUDGET = {"epochs": 3, "batch_size": 64, "lr": 0.01, "hidden": 16}
ENDS = {"ramp_end": (0.4, 0.6, 0.8)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with simulated features."""
    monkeypatch.chdir(tmp_path)
    simulated.write(train=150, valid=60, test=20)
    return tmp_path


def offer(patch: pytest.MonkeyPatch, method: str, space: dict[str, Any]) -> None:
    """Gives a method something to search."""
    patch.setattr(methods.load(method), "SEARCH", space, raising=False)


def run(method: str = "double_swap", budget: dict[str, Any] | None = None, **settings: object) -> dict[str, Any]:
    """Searches; what search.json holds."""
    config = simulated.config(train=BUDGET, search={"seeds": 2} | (budget or {}), method=settings)
    assert stage.main(["--dataset", "sim", "--method", method, "--config", config]) == 0
    assert not layout.search("sim", method).with_name(".search").exists()
    found: dict[str, Any] = io.read_json(layout.search("sim", method))
    return found


def test_candidates_are_the_settings_as_they_are_and_every_other_combination(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "group_dro", {"eta": (0.1, 0.01), "folds": (4, 2)})
    found = methods.candidates("group_dro", {})
    assert found == [{"eta": 0.01, "folds": 4}, {"eta": 0.1, "folds": 4}, {"eta": 0.1, "folds": 2}, {"eta": 0.01, "folds": 2}]
    assert methods.candidates("group_dro", {"folds": 3}) == [{"eta": 0.01}, {"eta": 0.1}], "what params.yaml sets is not searched"
    assert methods.candidates("group_dro@x", {"eta": 0.01}) == [{"folds": 4}, {"folds": 2}]
    assert methods.candidates("group_dro", {"eta": 1.0, "folds": 3}) == [{}]
    assert methods.candidates("majority", {}) == [{}]


def test_a_default_outside_the_values_is_tried_too_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "group_dro", {"eta": (0.1, 1.0, 2.0)})
    assert methods.candidates("group_dro", {})[0] == {"eta": 0.01}
    offer(monkeypatch, "group_dro", {"eta": (0.1, 1.0, 2.0, 3.0)})
    with pytest.raises(UserError, match="group_dro offers 5 candidates"):
        methods.candidates("group_dro", {})


@pytest.mark.parametrize("method", methods.names())
def test_no_method_has_more_candidates_than_another_may_have(method: str) -> None:
    """Seeds and epochs come from the section `search`, the same for all; the number of candidates is the one thing that a module decides."""
    module = methods.load(method)
    space = getattr(module, "SEARCH", {})
    assert constants(f"causalroute.methods.{method}").get("SEARCH", {}) == space, "a literal, so that the workflow can read it without importing"
    assert set(space) <= {field.name for field in dataclasses.fields(module.Settings)}
    found = methods.candidates(method, {})
    assert 1 <= len(found) <= methods.CANDIDATES
    defaults = dataclasses.asdict(methods.settings_of(method, {}))
    assert found[0] == {key: defaults[key] for key in space}
    for candidate in found[1:]:
        assert candidate != found[0]
        methods.settings_of(method, candidate)


def test_every_method_is_searched_with_the_same_seeds_and_epochs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "double_swap", ENDS)
    offer(monkeypatch, "cf_vqa", {"subtract": ("text", "both")})
    finish, trained = search.finish, []

    def counted(trial: job.Job, *rest: Any) -> Any:
        trained.append((trial.method, list(trial.seeds), trial.train))
        return finish(trial, *rest)

    monkeypatch.setattr(search, "finish", counted)
    for method in ("double_swap", "cf_vqa"):
        found = run(method, {"epochs": 2, "first_seed": 70})
        assert (found["seeds"], found["train"]["epochs"]) == ([70, 71], 2)
    assert {(tuple(seeds), budget) for _, seeds, budget in trained} == {((70, 71), Train(**BUDGET | {"epochs": 2}))}
    assert [method for method, _, _ in trained] == ["double_swap"] * 3 + ["cf_vqa"] * 2
    assert run("double_swap")["train"]["epochs"] == 3, "0: as in train"


def naive(method: str, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """Accuracy of each part, post by post."""
    _, posts, standard = data.training_posts("sim", parse(Dataset, io.canonical_json(simulated.dataset())), method)
    out = Path("naive") / method / str(len(list(Path("naive", method).glob("*"))))
    work = job.Job(method, settings, Train(**BUDGET), range(seed, seed + 1), out, out / "events", "key")
    job.run(work, posts, standard)
    trained = Weights(out / "weights.safetensors").restore(seed)
    whole, _ = data.load_posts(
        data.Files.of("sim", "b", "estimated"), ["valid"], simulated.CLASSES, roles=search.ROLES, views=data.TRAIN_VIEWS, standard=standard
    )
    found = {}
    for part, t, v in (("factual", "t", "v"), ("text", "t_swap", "v"), ("image", "t", "v_swap"), ("both", "t_swap", "v_swap")):
        right = []
        for row in range(len(whole.ids)):
            if (t == "t_swap" and not whole.text_ok[row]) or (v == "v_swap" and not whole.image_ok[row]):
                continue
            with torch.no_grad():
                right.append(int(trained.answer(whole.inputs(torch.tensor([row]), t, v)).p.argmax()) == int(whole.labels[row]))
        found[part] = sum(right) / len(right)
    return found


@pytest.mark.parametrize("method", ["double_swap", "oracle_erm", "majority"])
def test_the_judge_counts_like_a_loop_over_posts(method: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "double_swap":
        offer(monkeypatch, method, {"ramp_end": (0.4, 0.8)})
    found = run(method)
    for candidate in found["candidates"]:
        expected = [naive(method, candidate["settings"], seed) for seed in (1000, 1001)]
        assert candidate["accuracy"] == {part: [one[part] for one in expected] for part in expected[0]}
        values = [value for one in expected for value in one.values()]
        assert candidate["score"] == pytest.approx(sum(values) / len(values), abs=1e-9)
    assert found["chosen"] == max(found["candidates"], key=lambda one: one["score"])["settings"]


@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=4))
def test_the_best_wins_and_the_first_of_those_that_tie(counts: list[list[int]]) -> None:
    found = [search.Trial({"x": i}, {"factual": [c / 4 for c in row[:3]], "text": [c / 4 for c in row[3:]]}) for i, row in enumerate(counts)]
    sums = [sum(row) for row in counts]
    assert search.best(found).settings == {"x": sums.index(max(sums))}


def test_no_test_post_and_no_test_label_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The labels of the test splits are away, their texts and features spoilt: the search does not notice."""
    offer(monkeypatch, "double_swap", {"ramp_end": (0.4, 0.6)})
    before = run("double_swap")
    manifest = pl.read_parquet(layout.manifest("sim"))
    hidden = pl.col("split").is_in(["id", "ood", "neutral"])
    layout.test_labels("sim").unlink()
    io.write_parquet(layout.manifest("sim"), manifest.with_columns(pl.when(hidden).then(pl.lit("?")).otherwise(pl.col("text")).alias("text")))
    rows = torch.from_numpy(manifest.select(hidden)["split"].to_numpy())
    for views in ("factual", "estimated"):
        tensors, metadata = io.read_tensors(layout.features("sim", "b", views))
        spoilt = rows if views == "factual" else rows[tensors["rows"]]
        for name, value in tensors.items():
            if name != "rows":
                value[spoilt] = torch.nan
        io.write_tensors(layout.features("sim", "b", views), tensors, metadata)
    assert run("double_swap") == before


def test_it_repeats_to_the_byte_and_goes_on_where_it_was_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "double_swap", ENDS)
    run()
    expected = layout.search("sim", "double_swap").read_bytes()
    layout.search("sim", "double_swap").unlink()
    save, saved = Folder.save_seed, []

    def failing(self: Folder, seed: int, *rest: Any) -> None:
        save(self, seed, *rest)
        saved.append(seed)
        if len(saved) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Folder, "save_seed", failing)
    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    assert layout.search("sim", "double_swap").read_bytes() == expected
    assert saved == [1000, 1001] * 3, "no seed twice"


def weights(**sections: object) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    config = simulated.config(train=BUDGET, **sections)
    assert train.main(["--dataset", "sim", "--method", "double_swap", "--seeds", "0-0", "--config", config]) == 0
    return io.read_tensors(layout.run("sim", "double_swap", 0, 0) / "weights.safetensors")


def test_training_takes_what_was_chosen_and_says_so(folder: Path) -> None:
    io.write_json(layout.search("sim", "double_swap"), {"chosen": {"ramp_end": 0.6}})
    tensors, metadata = weights(searched=["double_swap"], method={"ramp_start": 0.2})
    assert json.loads(metadata["settings"]) == {"ramp_end": 0.6, "ramp_start": 0.2}
    plain, _ = weights(method={"ramp_end": 0.6, "ramp_start": 0.2})
    assert all(torch.equal(value, plain[name]) for name, value in tensors.items())
    _, metadata = weights(method={"ramp_start": 0.2})
    assert json.loads(metadata["settings"]) == {"ramp_start": 0.2}, "the file alone changes nothing"
    layout.search("sim", "double_swap").unlink()
    with pytest.raises(UserError, match="search of this method's settings is missing"):
        weights(searched=["double_swap"])


def test_the_report_names_what_was_chosen(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, "double_swap", {"ramp_end": (0.4, 0.8)})
    found = run()
    found["chosen"] = {"ramp_end": 0.8}
    io.write_json(layout.search("sim", "double_swap"), found)
    offer(monkeypatch, "cf_vqa", {"subtract": ("text", "both")})
    run("cf_vqa")
    note = searched.notes("sim", ["double_swap", "cf_vqa"])[0]
    assert "`double_swap` `ramp_end` = 0.8 (default 0.4)" in note
    assert "`cf_vqa` `subtract` = " in note
    assert "2 seeds that the table does not use, 3 epochs, 2 candidates at most" in note
    assert searched.notes("sim", []) == []
    with pytest.raises(UserError, match=r"(?s)is missing.*erm/search\.json"):
        searched.notes("sim", ["erm"])


@pytest.mark.parametrize("values", [{"seeds": 0}, {"epochs": -1}])
def test_a_budget_of_nothing_is_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="seeds must be at least 1, epochs at least 0"):
        Search(**values)
