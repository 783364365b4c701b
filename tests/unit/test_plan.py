from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from causalroute import plan
from causalroute.config import Ablation, Backbone, Config, Dataset, Editor, Mllm, Prompt, Replicates, parse
from causalroute.errors import UserError
from causalroute.evaluation import groups
from causalroute.io import canonical_json

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def config() -> Config:
    return parse(Config, canonical_json(yaml.safe_load((ROOT / "params.yaml").read_text())))


def sections(config: Config, stage: str, name: str = "planted") -> dict[str, dict[str, object]]:
    job = {"dataset": name, "method": "erm", "editor": "estimated", "backbone": config.datasets[name].backbone}
    found: dict[str, dict[str, object]] = json.loads(plan.stage_config(config, stage, **job))
    return found


@given(st.integers(1, 60), st.integers(1, 60))
def test_chunks_cover_every_seed_once_and_a_new_seed_changes_no_full_chunk(seeds: int, per_job: int) -> None:
    found = plan.chunks(Replicates(seeds=seeds, per_job=per_job))
    covered = [seed for chunk in found for seed in range(int(chunk.split("-")[0]), int(chunk.split("-")[1]) + 1)]
    assert covered == list(range(seeds))
    more = plan.chunks(Replicates(seeds=seeds + 1, per_job=per_job))
    full = seeds // per_job
    assert more[:full] == found[:full]


@pytest.mark.parametrize("stage", plan.SECTIONS)
@pytest.mark.parametrize("name", ["planted", "planted_sentiment", "mvsa", "mmsd", "mmsd2", "mvsa_injected", "mmsd_injected"])
def test_what_a_stage_receives_parses(config: Config, stage: str, name: str) -> None:
    found = sections(config, stage, name)
    assert list(found) == sorted(set(plan.SECTIONS[stage]) - {"searched"} - ({"backbone"} if "method" in plan.SECTIONS[stage] else set()))
    for key, cls in (("dataset", Dataset), ("editor", Editor), ("backbone", Backbone)):
        if key in found:
            parse(cls, canonical_json(found[key]))


def test_a_stage_sees_only_what_it_reads(config: Config) -> None:
    other = dataclasses.replace(config.datasets["planted"], methods=("erm",), editor="random")
    changed = dataclasses.replace(config, datasets={**config.datasets, "planted": other})
    same = [stage for stage in plan.SECTIONS if sections(config, stage) == sections(changed, stage)]
    assert same == ["fetch", "prepare", "audit", "pretrain", "features", "tokens", "counterfactuals", "gate", "gallery"]


def test_defaults_are_written_out(config: Config) -> None:
    assert sections(config, "features")["backbone"]["mllm"] is None
    assert sections(config, "fetch")["dataset"]["planted"] == {**dataclasses.asdict(config.datasets["planted"].planted), "sources": []}


def test_every_key_is_read_by_some_stage(config: Config) -> None:
    read = {key for keys in plan.SECTIONS.values() for key in keys}
    structure = {"run": "which data sets", "methods": "method", "editors": "editor", "datasets": "dataset", "backbones": "backbone", "ablation": "replicates"}
    for field in dataclasses.fields(Config):
        assert field.name in read or field.name in structure, field.name
    fields = set().union(*plan.DATASET_FIELDS.values())
    assert fields | {"search", "looker"} == {field.name for field in dataclasses.fields(Dataset)}, "search: which jobs there are; looker: the section backbone"


def test_editors_follow_the_methods(config: Config) -> None:
    assert plan.method_editor(config, "planted", "erm") is None
    assert plan.method_editor(config, "planted", "text_swap") == "estimated"
    assert plan.method_editor(config, "planted", "oracle_swap") == "truth"
    assert plan.feature_editors(config, "planted") == ["estimated", "truth"]
    assert plan.graded_editors(config, "planted") == ["estimated", "truth", "random"]
    assert plan.graded_editors(config, "mvsa") == ["single", "rules"], "the editor held out of training is judged too"
    datasets = {name: dataclasses.replace(dataset, held_out="") for name, dataset in config.datasets.items()}
    without = dataclasses.replace(config, datasets=datasets, editors={name: editor for name, editor in config.editors.items() if name != "truth"})
    with pytest.raises(UserError, match="needs the editor 'truth'"):
        plan.method_editor(without, "planted", "oracle_swap")


def test_plugins_name_what_is_imported_by_name(config: Config) -> None:
    assert plan.plugins(config, "prepare", dataset="mvsa") == ["causalroute.stages.prepare", "causalroute.data.formats.mvsa"]
    assert plan.plugins(config, "fetch", dataset="mvsa")[1:] == ["causalroute.data.sources.local"]
    assert plan.plugins(config, "train", dataset="mvsa", method="erm")[1:] == ["causalroute.methods.erm"]
    assert plan.plugins(config, "counterfactuals", editor="truth")[1:] == ["causalroute.counterfactual.text.truth", "causalroute.counterfactual.image.truth"]


def test_saliency_needs_features_and_truth_needs_the_truth(config: Config) -> None:
    assert [plan.needs_features(config, name) for name in ("estimated", "random", "truth")] == [True, False, False]
    assert [plan.needs_truth(config, name) for name in ("estimated", "random", "truth")] == [False, False, True]


def with_search(config: Config, patch: pytest.MonkeyPatch, space: dict[str, object], **settings: object) -> Config:
    """The shipped settings with a search on planted; the module of cf_vqa says what is searched."""
    constants = plan.constants
    patch.setattr(plan, "constants", lambda name: constants(name) | ({"SEARCH": space} if name.endswith(".cf_vqa") else {"SEARCH": {}}))
    planted = dataclasses.replace(config.datasets["planted"], search=True)
    chosen = {name: settings if name == "cf_vqa" else values for name, values in config.methods.items()}
    return dataclasses.replace(config, datasets={**config.datasets, "planted": planted}, methods=chosen)


def test_a_search_is_made_where_the_data_set_wants_it_and_params_leave_it_open(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    every = config.datasets["planted"].methods
    space: dict[str, object] = {"subtract": ("text", "both")}
    assert plan.searched(config, "planted", every) == []
    assert plan.searched(with_search(config, monkeypatch, space), "planted", every) == ["cf_vqa"]
    assert plan.searched(with_search(config, monkeypatch, {}), "planted", every) == []
    by_hand = with_search(config, monkeypatch, space, subtract="both")
    assert plan.searched(by_hand, "planted", every) == []
    assert plan.searched(by_hand, "mvsa", config.datasets["mvsa"].methods) == []


def test_only_stages_that_use_a_search_hear_of_it(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    on = with_search(config, monkeypatch, {"subtract": ("text", "both")})
    job = {"dataset": "planted", "method": "cf_vqa", "editor": "estimated", "backbone": "planted_clip"}
    changed = [stage for stage in plan.SECTIONS if plan.stage_config(config, stage, **job) != plan.stage_config(on, stage, **job)]
    assert changed == ["train", "report"]
    assert sections(on, "train", "planted").get("searched") is None, "erm searches nothing"
    report: dict[str, object] = json.loads(plan.stage_config(on, "report", dataset="planted"))
    assert report["searched"] == ["cf_vqa"]
    assert "searched" not in json.loads(plan.stage_config(config, "report", dataset="planted")), "a run without search shows no trace of it"


def test_a_search_space_that_is_no_mapping_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    on = with_search(config, monkeypatch, {})
    monkeypatch.setattr(plan, "constants", lambda name: {"SEARCH": (1, 2)})
    with pytest.raises(UserError, match="SEARCH of 'erm' is no mapping"):
        plan.searched(on, "planted", ["erm"])


def test_an_ablation_reads_methods_variants_and_what_makes_the_groups(config: Config) -> None:
    assert plan.ablation_rows(config, "planted")[:5] == ["text_only", "image_only", "causal_moe", "causal_moe@rule", "causal_moe@no_weights"]
    assert plan.ablation_rows(config, "mvsa") == []
    assert set(plan.PROBES) == set(groups.PROBES.values())
    few = dataclasses.replace(config.datasets["planted"], methods=("erm", "image_only"), ablation=("erm@b", "causal_moe@soft", "erm@a"))
    settings = {**config.methods, "erm@a": {}, "erm@b": {}}
    other = dataclasses.replace(config, datasets={**config.datasets, "planted": few}, methods=settings)
    assert plan.ablation_rows(other, "planted") == ["image_only", "erm", "erm@b", "erm@a", "causal_moe", "causal_moe@soft"]
    found = json.loads(plan.stage_config(other, "ablate", dataset="planted"))
    assert found["dataset"]["methods"] == plan.ablation_rows(other, "planted")
    assert plan.plugins(other, "ablate", dataset="planted")[2:] == ["causalroute.methods.erm", "causalroute.methods.causal_moe"]


def test_the_ablation_has_the_seeds_of_the_table_or_its_own(config: Config) -> None:
    assert plan.ablation_replicates(config) == config.replicates
    own = dataclasses.replace(config, ablation=Ablation(seeds=12))
    assert plan.chunks(plan.ablation_replicates(own)) == ["0-4", "5-9", "10-11"]
    assert json.loads(plan.stage_config(own, "ablate", dataset="planted"))["replicates"] == {"seeds": 12, "per_job": 5}
    assert json.loads(plan.stage_config(own, "report", dataset="planted"))["replicates"] == dataclasses.asdict(config.replicates)
    with pytest.raises(ValueError, match="must be at least 2000"):
        dataclasses.replace(config, ablation=Ablation(seeds=2000))


def test_editors_look_with_another_backbone_where_the_own_one_cannot_be_asked(config: Config) -> None:
    asked = Mllm(prompts=(Prompt(question="Is it sarcastic?", answers={"literal": "no", "sarcastic": "yes"}),))
    backbones = {**config.backbones, "chat": Backbone(kind="mllm", model="folder", mllm=asked)}

    def of(**changes: Any) -> Config:
        return dataclasses.replace(config, backbones=backbones, datasets={"planted": dataclasses.replace(config.datasets["planted"], **changes)})

    assert plan.looker(config, "planted") == "planted_clip"
    assert plan.looker(of(backbone="chat", looker="planted_clip"), "planted") == "planted_clip"
    assert plan.looker(of(backbone="chat", editor="truth", held_out=""), "planted") == "chat", "it asks no model"
    with pytest.raises(UserError, match="looker"):
        plan.looker(of(backbone="chat"), "planted")


def with_mllm(config: Config) -> Config:
    """The shipped settings with a data set that has a multimodal LLM as backbone and a method that trains inside of it."""
    asked = {"question": "Sarcastic?", "answers": {"literal": "no", "sarcastic": "yes"}}
    backbone = parse(Backbone, canonical_json({"kind": "mllm", "model": "models/some", "mllm": {"prompts": [asked]}}))
    talks = dataclasses.replace(config.datasets["mvsa"], backbone="some", methods=("lora_moe",))
    methods = {**config.methods, "lora_moe@small": {"rank": 2}}
    return dataclasses.replace(config, datasets={**config.datasets, "talks": talks}, backbones={**config.backbones, "some": backbone}, methods=methods)


@pytest.mark.parametrize("method", ["lora_moe", "lora_moe@small"])
def test_a_method_that_reads_posts_hears_of_the_backbone(config: Config, method: str) -> None:
    found = with_mllm(config)
    for stage in ("train", "evaluate"):
        told = json.loads(plan.stage_config(found, stage, dataset="talks", method=method))
        assert parse(Backbone, canonical_json(told["backbone"])) == found.backbones["some"]
        assert "backbone" not in json.loads(plan.stage_config(found, stage, dataset="talks", method="erm"))
        with pytest.raises(UserError, match=r"which 'planted_clip' is not(.|\n)*datasets\.planted\.backbone"):
            plan.stage_config(found, stage, dataset="planted", method=method)
    assert [plan.reads(name) for name in (method, "causal_moe", "token_moe")] == ["posts", "", "tokens"]
    on = dataclasses.replace(found, datasets={**found.datasets, "talks": dataclasses.replace(found.datasets["talks"], search=True)})
    assert plan.searched(on, "talks", [method]) == []


@pytest.mark.parametrize("listed", [("token_moe@unmasked", "token_moe"), ("token_moe", "token_moe@unmasked")])
def test_a_derived_method_comes_behind_the_one_it_is_compared_with(config: Config, listed: tuple[str, ...]) -> None:
    chosen = dataclasses.replace(config.datasets["planted"], methods=("erm",), ablation=listed)
    found = dataclasses.replace(config, datasets={"planted": chosen})
    assert plan.ablation_rows(found, "planted") == ["causal_moe", "token_moe", "token_moe@unmasked"]


def test_tokens_are_made_of_what_is_looked_at_and_of_nothing_else(config: Config) -> None:
    def of(methods: tuple[str, ...], **changes: Any) -> Config:
        chosen = dataclasses.replace(config.datasets["planted"], methods=methods, **changes)
        editors = {**config.editors, "pooled": Editor(text="lexicon", image="centre", level="patches")}
        return dataclasses.replace(config, datasets={"planted": chosen}, editors=editors)

    wanted = ("erm", "token_moe@unmasked")
    assert plan.token_views(of(wanted), "planted", wanted) == ["factual", "estimated", "truth"]
    assert plan.token_views(of(wanted, held_out=""), "planted", wanted) == ["factual", "estimated"]
    assert plan.token_views(of(("causal_moe",)), "planted", ("causal_moe",)) == []
    assert plan.token_views(of(("causal_moe",), held_out="pooled"), "planted", ("causal_moe",)) == ["factual"]
    with pytest.raises(UserError, match=r"'pooled' pools its image views(.|\n)*editors\.pooled\.level"):
        plan.token_views(of(wanted, held_out="pooled"), "planted", wanted)
    jobs = [stage for stage, _ in plan.result_jobs(of(wanted), "planted")]
    assert ("tokens" in jobs, "tokens" in [stage for stage, _ in plan.result_jobs(of(("erm",)), "planted")]) == (True, False)
    told = json.loads(plan.stage_config(of(wanted), "train", dataset="planted", method=wanted[1]))
    assert parse(Backbone, canonical_json(told["backbone"])) == config.backbones["planted_clip"]
    with pytest.raises(UserError, match=r"wants features of tokens, which 'some' does not keep(.|\n)*lora_moe"):
        plan.stage_config(with_mllm(config), "train", dataset="talks", method="token_moe")
