"""A project folder: what the table and the flags come to, params.yaml, backbones by name, the files of the workflow."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.small_posts import write_table
from tests.unit.tiny_mllm import save_mllm
from tests.unit.tiny_models import save_bert, save_clip, save_vit

from causalroute.audit.table import Table
from causalroute.config import Backbone, Config, parse
from causalroute.errors import UserError
from causalroute.io import canonical_json
from causalroute.project import backbones, params, settings, train, workflow
from causalroute.project.run import Lines
from causalroute.project.settings import Wanted

ROOT = Path(__file__).resolve().parents[2]


def planned(path: Path, **more: Any) -> dict[str, Any]:
    table = {key: more.pop(key) for key in ("text", "label", "image", "split", "root", "classes") if key in more}
    return settings.plan(Wanted(Table(path, **table), **({"backbone": "small"} | more)))[1]


def test_columns_and_classes_are_guessed_as_the_audit_does(tmp_path: Path) -> None:
    guessed = settings.look(Table(write_table(tmp_path)))
    assert (guessed.columns.text, guessed.columns.label, guessed.columns.image, guessed.columns.split) == ("caption", "mood", "image", "")
    assert (guessed.classes, guessed.used, guessed.dropped) == (("negative", "positive"), 150, {})
    assert any("--text" in note for note in guessed.notes)


@pytest.mark.parametrize("images", [True, False])
def test_params_are_valid_and_say_what_was_guessed(tmp_path: Path, images: bool) -> None:
    values = planned(write_table(tmp_path, images=images))
    text = params.text_of(values)
    assert yaml.safe_load(text) == values
    config = parse(Config, canonical_json(yaml.safe_load(text)))
    dataset = config.datasets["posts"]
    assert (config.run, dataset.classes, dataset.task, dataset.splits.ood) == (("posts",), ("negative", "positive"), "sentiment", "if_possible")
    assert ("image_only" in dataset.methods, bool(dataset.columns.image), bool(dataset.sources[0].images)) == (images,) * 3
    assert all(f"# {comment}" in text for comment in params.COMMENTS.values())


def test_every_comment_is_that_of_a_key(tmp_path: Path) -> None:
    values = planned(write_table(tmp_path))
    assert set(params.COMMENTS) == set(values)
    assert set(params.KEYS) <= set(values["datasets"]["posts"])


def test_tables_of_many_classes_and_odd_names_are_valid(tmp_path: Path) -> None:
    path = tmp_path / "Ünï code & more.csv"
    path.write_text("text,label\n" + "".join(f"post {n} about it,{('yes', 'no', '1', 'null', 'a: b')[n % 5]}\n" for n in range(100)))
    values = planned(path)
    again = yaml.safe_load(params.text_of(values))
    assert again == values
    assert again["run"] == ["n_code_more"]
    assert again["datasets"]["n_code_more"]["classes"] == ["1", "a: b", "no", "null", "yes"]


@pytest.mark.parametrize(("posts", "share", "per_job"), [(150, 0.2, 5), (2000, 0.15, 3), (6000, 0.1, 3)])
def test_small_tables_keep_a_larger_test_and_large_ones_train_in_two_jobs(posts: int, share: float, per_job: int) -> None:
    guessed = settings.Guessed(settings.Columns(), (), ("a", "b"), posts, {})
    values = settings.settings(Wanted(Table(Path("t.csv"))), guessed, backbones.choose("small"))
    assert values["datasets"]["t"]["splits"]["test"] == share
    assert values["replicates"] == {"seeds": 5, "per_job": per_job}


def test_flags_reach_the_settings(tmp_path: Path) -> None:
    path = write_table(tmp_path)
    values = planned(path, methods=("erm", "poe"), method="gear", seeds=2, epochs=7, changes=("train.lr=0.01", "datasets.posts.held_out=rules"))
    assert values["datasets"]["posts"]["methods"] == ["erm", "poe", "gear"]
    assert (values["replicates"], values["train"]["epochs"], values["train"]["lr"]) == ({"seeds": 2, "per_job": 2}, 7, 0.01)
    assert values["datasets"]["posts"]["held_out"] == "rules"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"methods": ("erm", "causal_mo")}, "did you mean 'causal_moe'?"),
        ({"changes": ("train.lr",)}, "write KEY=VALUE"),
        ({"changes": ("train.lrr=1",)}, "did you mean 'lr'?"),
        ({"changes": ("run.x.y=1",)}, "holds no further keys"),
        ({"changes": ("train.lr=[",)}, "is no YAML value"),
        ({"backbone": "clop"}, "choose from clip, clip-large"),
        ({"backbone": "openai/clip-vit-base-patch32"}, "a hub id needs its commit"),
        ({"label": "mode"}, "perhaps 'mood'"),
        ({"root": Path("elsewhere")}, "--root FOLDER"),
        ({"classes": ("positive",)}, "fewer than two classes"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("?", r"\?")):
        planned(write_table(tmp_path), **more)


def test_a_split_column_without_a_needed_split_is_told(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("text,label,split\n" + "".join(f"post {n},{'ab'[n % 2]},{('train', 'test')[n % 5 == 0]}\n" for n in range(60)))
    with pytest.raises(UserError, match="no posts for valid"):
        planned(path)
    assert planned(path, split="")["datasets"]["t"]["columns"]["split"] == ""


def test_a_text_encoder_leaves_images_out(tmp_path: Path) -> None:
    values = planned(write_table(tmp_path), backbone="minilm")
    assert values["datasets"]["posts"]["columns"]["image"] == ""
    assert "image_only" not in values["methods"]
    assert values["backbones"]["minilm"]["text_model"] == backbones.MINILM


def test_every_short_name_is_an_entry_that_parses() -> None:
    for name in (*backbones.HUB, "minilm", "small", f"me/my-Model.v2@{'0' * 40}"):
        chosen = backbones.choose(name)
        entry = parse(Backbone, canonical_json(chosen.settings))
        assert chosen.name.replace("_", "").isalnum()
        assert bool(entry.model) == (name not in ("minilm", "small"))
        assert not entry.model or len(entry.revision) == 40


def test_folders_are_told_by_what_they_hold(tmp_path: Path) -> None:
    clip, bert, vit = save_clip(tmp_path / "My CLIP"), save_bert(tmp_path / "bert"), save_vit(tmp_path / "vit", pooler=False)
    assert (backbones.choose(str(clip)).name, backbones.choose(str(clip)).settings["model"], backbones.choose(str(clip)).sees) == ("my_clip", str(clip), True)
    assert (backbones.choose(str(bert)).settings["text_model"], backbones.choose(str(bert)).sees) == (str(bert), False)
    assert backbones.choose(f"minilm+{vit}").settings["image_model"] == str(vit)
    with pytest.raises(UserError, match=r"reads images alone(.|\n)*minilm\+"):
        backbones.choose(str(vit))
    with pytest.raises(UserError, match="holds no model"):
        backbones.choose(str(tmp_path))
    with pytest.raises(UserError, match="is no folder"):
        backbones.choose("minilm+nowhere")


def test_a_multimodal_llm_is_asked_for_the_classes_and_has_a_looker_beside_it(tmp_path: Path) -> None:
    table, folder = write_table(tmp_path), save_mllm(tmp_path / "My LLaVA", "llava")
    for asked in (str(folder), f"mllm:{folder}", f"mllm:me/my-LLaVA@{'0' * 40}"):
        values = planned(table, backbone=asked, looker="small")
        config = parse(Config, canonical_json(values))
        dataset, asking = config.datasets["posts"], config.backbones["my_llava"].mllm
        assert (dataset.backbone, dataset.looker, config.backbones["small"].kind) == ("my_llava", "small", "dual_encoder")
        assert asking is not None
        assert asking.prompts[0].answers == {"negative": "A", "positive": "B"}
        assert "A: negative, B: positive" in asking.prompts[0].question
        assert {"erm", "causal_moe", "zero_shot", "zero_shot_debiased"} <= set(dataset.methods)
        assert yaml.safe_load(params.text_of(values)) == values


@pytest.mark.parametrize(
    ("backbone", "more", "words"),
    [
        ("mllm:no/commit", {}, "names no model"),
        ("{llm}", {"looker": "nonsense"}, "there is no backbone 'nonsense'(.|\n)*where: --looker"),
        ("{llm}", {"looker": "{llm}"}, "is a multimodal LLM, and cannot find the cores"),
        ("{llm}", {"looker": "minilm"}, "reads no images, and cannot find the cores"),
        ("{llm}", {"image": ""}, "reads images, and the table has none"),
    ],
)
def test_mistakes_around_a_multimodal_llm_are_told_before_any_work(tmp_path: Path, backbone: str, more: dict[str, str], words: str) -> None:
    llm = str(save_mllm(tmp_path / "llm", "llava"))
    table = write_table(tmp_path)
    with pytest.raises(UserError, match=words):
        planned(table, backbone=backbone.format(llm=llm), **{key: value.format(llm=llm) for key, value in more.items()})


def test_an_unreachable_hub_is_told_at_once_with_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(backbones, "getproxies", dict)
    monkeypatch.setattr(backbones.socket, "getaddrinfo", lambda *_: (_ for _ in ()).throw(OSError("no such host")))
    with pytest.raises(UserError) as caught:
        backbones.available(Backbone(**backbones.choose("clip").settings), "clip")
    told = str(caught.value)
    model, revision, _ = backbones.HUB["clip"]
    for words in (f"hf download {model} --revision {revision}", "--backbone small", "--backbone minilm", "minilm+FOLDER", "--backbone clip"):
        assert words in told


def test_a_model_in_the_cache_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    model, revision, _ = backbones.HUB["clip"]
    save_clip(tmp_path / f"models--{model.replace('/', '--')}" / "snapshots" / revision)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(backbones, "_fetch", lambda *_: pytest.fail("asked the network"))
    backbones.available(Backbone(**backbones.choose("clip").settings))


def test_half_a_download_is_gone_on_with_and_a_multimodal_llm_brings_its_chat_template(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model, revision = "me/llm", "1" * 40
    snapshot = save_mllm(tmp_path / "models--me--llm" / "snapshots" / revision, "llava")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (snapshot / "model.safetensors").rename(snapshot / index["weight_map"]["a"])
    (snapshot / "model.safetensors.index.json").write_text(canonical_json(index))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(backbones, "_known", lambda host: True)
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(backbones, "find_folder", lambda *_, more, where: asked.append(tuple(more)))
    chosen = backbones.choose(f"mllm:{model}@{revision}").settings
    entry = parse(Backbone, canonical_json(chosen | {"mllm": {"prompts": [{"question": "?", "answers": {"x": "A", "y": "B"}}]}}))
    backbones.available(entry)
    assert len(asked) == 1
    assert "chat_template*" in asked[0]
    (snapshot / index["weight_map"]["b"]).touch()
    backbones.available(entry)
    assert len(asked) == 1
    for path in snapshot.glob("chat_template*"):
        path.unlink()
    backbones.available(entry)
    assert len(asked) == 2


def test_a_multimodal_llm_is_not_taken_for_two_towers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    revision = "1" * 40
    save_mllm(tmp_path / "models--me--llm" / "snapshots" / revision, "llava")
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=f"is a multimodal LLM(.|\n)*write mllm:me/llm@{revision}"):
        backbones.available(Backbone(**backbones.choose(f"me/llm@{revision}").settings), f"me/llm@{revision}")


@pytest.mark.parametrize("method", ["zero_shot", "token_moe", "rewrite_detector"])
def test_a_method_that_cannot_be_saved_is_refused_before_the_run(tmp_path: Path, method: str) -> None:
    wanted = Wanted(Table(write_table(tmp_path)), str(save_mllm(tmp_path / "llm", "llava")), "small", method=method)
    with pytest.raises(UserError, match=f"{method!r} (works inside a multimodal LLM|reads features of single tokens|is a cheat)"):
        train.prepare(wanted, tmp_path / "out", lines=Lines(io.StringIO()), fetch=False)


def test_params_are_written_once_and_edits_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first, second = (params.text_of(planned(write_table(tmp_path), seeds=seeds)) for seeds in (2, 3))
    assert params.settle(folder, first) == "written"
    assert params.settle(folder, first) == "same"
    assert params.settle(folder, second) == "written", "nobody edited the file"
    edited = second.replace("lr: 0.001", "lr: 0.002")
    (folder / "params.yaml").write_text(edited)
    assert params.settle(folder, second) == "kept"
    assert (folder / "params.yaml").read_text() == edited
    assert params.read(folder).train.lr == 0.002
    with pytest.raises(UserError, match=r"has edits(.|\n)*seeds: 3(.|\n)*seeds: 2(.|\n)*--force"):
        params.settle(folder, first)
    assert params.settle(folder, first, force=True) == "written"
    assert ((folder / "params.yaml").read_text(), (folder / "params.yaml.old").read_text()) == (first, edited)


def test_a_folder_with_other_things_is_not_taken(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="something else than a project"):
        params.settle(write_table(tmp_path).parent, "run: []\n")
    (tmp_path / "params.yaml").write_text("run: [mine]\n")
    with pytest.raises(UserError, match="has edits"):
        params.settle(tmp_path, "run: []\n")
    with pytest.raises(UserError, match="is no project"):
        params.read(tmp_path / "nowhere")
    (tmp_path / "params.yaml").write_text("run: [\n")
    with pytest.raises(UserError, match="not valid YAML"):
        params.read(tmp_path)


def installed(folder: Path) -> Path:
    """The package as a wheel would install it, by the very mapping of pyproject.toml."""
    shutil.copytree(ROOT / "src" / "causalroute", folder / "causalroute", ignore=shutil.ignore_patterns("__pycache__"))
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["src/causalroute"]
    for source, target in wheel["force-include"].items():
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, folder / target)
    return folder / "causalroute"


@pytest.mark.slow
def test_the_workflow_is_found_in_a_checkout_and_runs_from_an_installed_package(tmp_path: Path) -> None:
    assert workflow.root() == ROOT
    package = installed(tmp_path / "site")
    assert workflow.root(package) == package / workflow.SHIPPED
    with pytest.raises(UserError, match="workflow are missing"):
        workflow.root(tmp_path / "nowhere" / "src" / "causalroute")
    command = [sys.executable, "-m", "causalroute", "train", str(write_table(tmp_path)), "--backbone", "small", "--dry-run", "--output-dir", "run"]
    clean = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "would run   7 x training each method" in done.stderr
    log = (tmp_path / "run" / "logs" / "workflow.log").read_text()
    assert f"Snakefile: {package / workflow.SHIPPED / 'Snakefile'}" in log
    assert f"profile {package / workflow.SHIPPED / 'profiles' / 'default'}" in log


def test_a_project_with_a_workflow_of_its_own_runs_that(tmp_path: Path) -> None:
    assert workflow.of_folder(tmp_path) == ROOT
    (tmp_path / "Snakefile").write_text("")
    assert workflow.of_folder(tmp_path) == tmp_path.resolve()
