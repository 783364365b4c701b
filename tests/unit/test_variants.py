"""Variants: what a name may be, where it stands, and that a variant differs from its method by its settings alone."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests import simulated

from causalroute import io, layout, methods, plan
from causalroute.config import Config, Dataset, Evaluate, parse
from causalroute.errors import UserError
from causalroute.evaluation.claims import gap
from causalroute.evaluation.scoring import Results, Row
from causalroute.io import canonical_json
from causalroute.report import headline
from causalroute.stages import evaluate, train
from causalroute.variants import DERIVED, MODULE, VARIANT, is_oracle, is_variant, module_of, parent_of, stream_of

ROOT = Path(__file__).resolve().parents[2]
BUDGET = {"epochs": 3, "batch_size": 64, "lr": 0.01, "hidden": 16}


@given(st.from_regex(MODULE, fullmatch=True), st.from_regex(VARIANT, fullmatch=True))
def test_a_variant_has_the_module_before_the_sign(module: str, variant: str) -> None:
    assert module_of(module) == module
    assert module_of(f"{module}@{variant}") == module
    assert is_variant(f"{module}@{variant}")
    assert not is_variant(module)


def test_a_derived_module_is_compared_with_the_one_it_comes_from_and_draws_as_that_one() -> None:
    assert set(DERIVED) | set(DERIVED.values()) <= set(methods.names())
    assert [parent_of(name) for name in ("token_moe", "token_moe@x", "causal_moe@x", "erm")] == ["causal_moe", "token_moe", "causal_moe", "erm"]
    assert [stream_of(name) for name in ("token_moe", "token_moe@x", "causal_moe@x", "erm")] == ["causal_moe", "causal_moe", "causal_moe", "erm"]


@given(st.text(max_size=12))
def test_any_other_text_is_refused(text: str) -> None:
    letters = set("abcdefghijklmnopqrstuvwxyz0123456789_")
    module, at, variant = text.partition("@")
    good = bool(module) and module[0].isalpha() and set(module) <= letters and set(variant) <= letters and bool(at) == bool(variant)
    if good:
        assert module_of(text) == module
    else:
        with pytest.raises(UserError, match="is no name of a method"):
            module_of(text)


@pytest.mark.parametrize("name", ["erm@", "@x", "erm@a@b", "erm@A", "Erm", "erm@a-b", "erm\n", "../erm", ""])
def test_a_bad_name_is_told_with_its_mend(name: str) -> None:
    with pytest.raises(UserError, match=r"(?s)is no name of a method.*<module>@<variant>"):
        methods.settings_of(name, {})


def test_settings_module_and_editor_are_found_by_the_name_of_a_variant() -> None:
    assert methods.load("double_swap@x") is methods.load("double_swap")
    assert methods.editor_of("oracle_swap@x", "mine") == "truth"
    assert methods.settings_of("causal_moe@soft", {"top_k": 0}).top_k == 0
    with pytest.raises(UserError, match=r"(?s)did you mean 'top_k'.*params.yaml: methods\.causal_moe@soft"):
        methods.settings_of("causal_moe@soft", {"topk": 0})
    with pytest.raises(UserError, match=r"unknown method 'causal_mo'; did you mean 'causal_moe'"):
        methods.load("causal_mo@dense")


def test_the_plan_treats_a_variant_as_its_module_under_its_own_settings() -> None:
    config = parse(Config, canonical_json(yaml.safe_load((ROOT / "params.yaml").read_text())))
    assert plan.method_editor(config, "planted", "causal_moe@soft") == "estimated"
    assert plan.evaluation_editor(config, "planted", "causal_moe@soft") == "estimated"
    assert plan.plugins(config, "train", dataset="planted", method="causal_moe@soft")[1:] == ["causalroute.methods.causal_moe"]
    found = json.loads(plan.stage_config(config, "train", dataset="planted", method="causal_moe@soft"))
    assert found["method"] == {"temperature": 0.5}
    assert layout.run("planted", "causal_moe@soft", 0, 4).as_posix() == "models/planted/causal_moe@soft/seeds0-4"


def dataset(**change: Any) -> Dataset:
    return parse(Dataset, canonical_json(simulated.dataset() | change))


def test_a_data_set_lists_variants_to_ablate_and_knows_them_by_their_module() -> None:
    assert dataset(ablation=["erm@x"]).ablation == ("erm@x",)
    with pytest.raises(UserError, match=r"\['erm'\] are none"):
        dataset(ablation=["erm"])
    with pytest.raises(UserError, match="names one variant twice"):
        dataset(ablation=["erm@x", "erm@x"])
    with pytest.raises(UserError, match=r"'image_swap@x'.* need images"):
        dataset(format="table", table="a.csv", columns={"image": ""}, methods=["erm", "image_swap@x"])


def whole(**change: Any) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return values | change


def test_the_whole_file_is_checked_for_names_that_hang_in_the_air() -> None:
    values = whole()
    values["datasets"] = {"planted": values["datasets"]["planted"] | {"methods": ["erm"]}}
    left = {name: value for name, value in values["methods"].items() if name != "causal_moe"}
    with pytest.raises(UserError, match=r"datasets\.planted\.ablation, the method itself: 'causal_moe' is not defined"):
        parse(Config, canonical_json(values | {"methods": left}))
    with pytest.raises(UserError, match="'Erm@x' is no name of a method"):
        parse(Config, canonical_json(whole(methods=whole()["methods"] | {"Erm@x": {}})))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    simulated.write(train=200, valid=60, test=40)
    return tmp_path


def trained(method: str, **settings: object) -> tuple[dict[str, torch.Tensor], dict[str, str], str]:
    """Weights, metadata and history of one seed."""
    assert train.main(["--dataset", "sim", "--method", method, "--seeds", "3-3", "--config", simulated.config(train=BUDGET, method=settings)]) == 0
    out = layout.run("sim", method, 3, 3)
    return *io.read_tensors(out / "weights.safetensors"), (out / "history.csv").read_text()


@pytest.mark.parametrize(("method", "settings"), [("erm", {}), ("group_dro", {"eta": 0.1}), ("causal_moe", {"rank": 2}), ("bag_of_words", {})])
def test_a_variant_with_the_same_settings_is_trained_to_the_same_numbers(method: str, settings: dict[str, object], folder: Path) -> None:
    tensors, metadata, history = trained(method, **settings)
    again, other, repeated = trained(f"{method}@same", **settings)
    assert history == repeated
    assert tensors.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in tensors.items())
    assert other == metadata | {"method": f"{method}@same"}


def test_predictions_of_a_variant_are_made_under_its_settings(folder: Path) -> None:
    trained("causal_moe@soft", top_k=0)
    assert evaluate.main(["--dataset", "sim", "--method", "causal_moe@soft", "--seeds", "3-3", "--config", simulated.config(evaluate={}, method={})]) == 0
    experts = pl.read_parquet(layout.run("sim", "causal_moe@soft", 3, 3) / "predictions.parquet")["experts"]
    assert experts.list.len().unique().to_list() == [4]


def test_tables_class_a_variant_with_its_module() -> None:
    assert [headline.kind(name) for name in ("text_only@wide", "erm@wide", "oracle_erm@x")] == ["baseline", "method", "oracle"]
    assert headline.name("image_swap@x", "attributes") == "image_swap@x (attributes)"
    row = Row("erm@wide", "ood", "accuracy", 0.9, 0.8, 1.0, None, None, 10, 2, True)
    moe = dataclasses.replace(row, method="causal_moe@x", mean=0.7)
    asked = [dataclasses.replace(row, method=name) for name in ("zero_shot@text", "zero_shot_generated")]
    found = gap(Results([row, *asked, moe], [], {}, {}, [0, 1]), Evaluate())
    assert found is not None
    assert (found.row.method, found.debiased) == ("causal_moe@x", 1), "a variant of a plain method does not fight shortcuts either, nor does a model as it is"


def test_names_in_the_shipped_settings_are_good() -> None:
    for name in whole()["methods"]:
        assert re.fullmatch(f"{MODULE}(@{VARIANT})?", name)


@pytest.mark.parametrize(("name", "oracle"), [("oracle_erm", True), ("causal_moe@oracle_gate", True), ("causal_moe", False), ("causal_moe@rule", False)])
def test_a_variant_that_knows_too_much_is_an_oracle(name: str, oracle: bool) -> None:
    assert is_oracle(name) is oracle
