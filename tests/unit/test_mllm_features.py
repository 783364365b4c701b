"""Features of a multimodal LLM: the stage's files, the same bytes whatever the batch, threads and what was stored, resume after a crash."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.unit import tiny_mllm
from tests.unit.test_features_stage import edits, manifest

from causalroute import layout, pairs
from causalroute.config import Backbone as Settings
from causalroute.config import Mllm, Prompt
from causalroute.counterfactual.paired import PairInput, pair_inputs
from causalroute.counterfactual.views import EDITED, FACTUAL, TextInput, view_inputs
from causalroute.errors import UserError
from causalroute.features import chat_passes
from causalroute.features.backbone import load_backbone
from causalroute.features.encode import encode
from causalroute.features.encoding import Encoding
from causalroute.features.store import Store
from causalroute.io import read_tensors
from causalroute.stages import features as stage

pytestmark = pytest.mark.slow

PROMPTS = (
    Prompt(question="Is it sarcastic?", answers={"literal": "no", "sarcastic": "yes"}),
    Prompt(question="Meant so?", answers={"literal": "A", "sarcastic": "B"}),
)
COUNT = 5


@pytest.fixture(scope="module", params=["llava", "qwen2_5_vl", "smolvlm", "gemma3", "internvl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllm.save_mllm(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_mllm.save_mllm(tmp_path_factory.mktemp("llava"), "llava")


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(kind="mllm", model=str(folder), batch_size=3, mllm=Mllm(prompts=PROMPTS, image_side=48, **more))


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CAUSALROUTE_CACHE", str(tmp_path / "cache"))
    layout.raw("mine").mkdir(parents=True)
    layout.counterfactuals("mine", "own").parent.mkdir(parents=True)
    posts = manifest(layout.raw("mine"), COUNT, visual="image")
    posts.write_parquet(layout.manifest("mine"))
    edits(posts, image=True).write_parquet(layout.counterfactuals("mine", "own"))
    Image.new("RGB", (32, 32), (90, 90, 90)).save(layout.reference_image("mine"))
    return tmp_path


def run_stage(folder: Path, views: str, **more: Any) -> dict[str, torch.Tensor]:
    config = json.dumps({"dataset": {}, "backbone": dataclasses.asdict(settings(folder, **more))})
    assert stage.main(["--dataset", "mine", "--backbone", "chat", "--views", views, "--config", config]) == 0
    return read_tensors(layout.features("mine", "chat", views))[0]


def test_the_stage_writes_joint_features_and_scores(checkout: Path, folder: Path) -> None:
    factual, edited = run_stage(folder, "factual"), run_stage(folder, "own")
    width, posts, swaps = factual["t"].shape[1], COUNT - 1, 2
    score = (2, 2)
    shapes = {name: tuple(value.shape) for name, value in factual.items()}
    assert shapes == {**dict.fromkeys("tvk", (COUNT, width)), **dict.fromkeys(("z", "z_t", "z_v"), (COUNT, *score)), "z_0": (1, *score)}
    assert shapes.keys() == {"t", "v", "k", *map(pairs.score_name, ("t", "v", "k", pairs.NOTHING))}
    shapes = {name: tuple(value.shape) for name, value in edited.items()}
    for prefix, tail in (("k", (width,)), ("z", score)):
        assert {shapes[f"{prefix}_{name}"] for name in "sc"} == {(posts, *tail)}
        assert {shapes[f"{prefix}_swap_{name}"] for name in "tv"} == {(posts, swaps, *tail)}
        assert shapes[f"{prefix}_swap_tv"] == (posts, swaps, swaps, *tail)
    assert shapes["z_t_s"] == shapes["z_v_s"] == (posts, *score)
    assert shapes["z_t_swap"] == shapes["z_v_swap"] == (posts, swaps, *score)
    assert (shapes["t_swap"], shapes["v_0"]) == ((posts, swaps, width), (1, width))
    assert all(value.isfinite().all() for value in (*factual.values(), *edited.values()))
    assert factual["k"].dtype == torch.float16
    assert factual["z"].dtype == torch.float32
    assert (factual["z"] < 0).all()


def test_each_joint_feature_is_that_of_its_pair(checkout: Path, llava: Path) -> None:
    edited = run_stage(llava, "own")
    posts, counterfactuals = manifest(layout.raw("mine"), COUNT, visual="image"), edits(manifest(layout.raw("mine"), COUNT, visual="image"), image=True)
    backbone, reference = load_backbone(settings(llava), "chat"), layout.reference_image("mine")
    texts, images = (view_inputs(posts, counterfactuals, view, reference) for view in ("t_swap", "v_swap"))
    own = view_inputs(posts, None, "v", reference)
    for name, place, text, image in (
        ("k_swap_tv", (2, 1, 0), texts[2 * 2 + 1], images[2 * 2]),
        ("k_swap_t", (3, 1), texts[3 * 2 + 1], own[4]),
    ):
        ask, chat = backbone.chats(PairInput((text, image)), layout.raw("mine"))[0]  # type: ignore[arg-type]
        wanted = backbone.forward([chat], ask)["pooled"][0]
        assert torch.equal(edited[name][place], wanted), name


def job(folder: Path, root: Path, store: Path, batch: int = 1, threads: int = 1) -> Encoding:
    backbone = load_backbone(settings(folder), "chat")
    backbone.batch_size = batch  # which is 1 on a CPU
    return Encoding(backbone, Store(store, "key"), root, threads)


def inputs(root: Path) -> list[Any]:
    posts = manifest(root, COUNT, visual="image")
    return [*view_inputs(posts, None, "t"), *view_inputs(posts, None, "v"), *pair_inputs(posts, None, "k"), TextInput(""), TextInput("the [MASK] again")]


def test_same_bytes_whatever_was_stored_and_however_many_threads(tmp_path: Path, folder: Path) -> None:
    wanted = inputs(tmp_path / "photos")
    fresh = job(folder, tmp_path / "photos", tmp_path / "a")
    keys = encode(fresh, wanted)
    assert encode(fresh, wanted) == keys, "nothing is left to encode"
    other = job(folder, tmp_path / "photos", tmp_path / "b", threads=3)
    encode(other, wanted[3:7])
    assert encode(other, wanted[::-1])[::-1] == keys
    for name in ("pooled", "scores"):
        assert torch.equal(fresh.store.values(keys, name), other.store.values(keys, name)), name
    again = Store(tmp_path / "a", "key")
    assert again.missing(keys) == []
    assert torch.equal(again.pooled(keys), fresh.store.pooled(keys))


def test_batch_size_changes_nothing_but_rounding(tmp_path: Path, folder: Path) -> None:
    wanted, found = inputs(tmp_path / "photos"), []
    for batch in (1, 4):
        one = job(folder, tmp_path / "photos", tmp_path / str(batch), batch)
        keys = encode(one, wanted)
        found.append((one.store.pooled(keys).float(), one.store.values(keys, "scores")))
    torch.testing.assert_close(found[0][0], found[1][0], atol=4e-3, rtol=1e-3)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-4, rtol=1e-4)


def test_a_killed_run_goes_on_behind_its_last_shard(tmp_path: Path, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_passes, "SHARD", 4)
    wanted, first = inputs(tmp_path / "photos"), job(llava, tmp_path / "photos", tmp_path / "a")
    forward, calls = first.backbone.forward, []  # type: ignore[attr-defined]

    def dies(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) > 14:
            raise KeyboardInterrupt
        return forward(*arguments, **named)

    monkeypatch.setattr(first.backbone, "forward", dies)
    with pytest.raises(KeyboardInterrupt):
        encode(first, wanted)
    second = job(llava, tmp_path / "photos", tmp_path / "a")
    held = len(second.store.index)
    assert 0 < held < len(wanted)
    keys = encode(second, wanted)
    fresh = job(llava, tmp_path / "photos", tmp_path / "b")
    assert torch.equal(second.store.pooled(keys), fresh.store.pooled(encode(fresh, wanted)))


def test_a_batch_that_does_not_fit_is_halved(tmp_path: Path, llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, small = inputs(tmp_path / "photos"), job(llava, tmp_path / "photos", tmp_path / "a", batch=4)
    keys = encode(small, wanted)
    tight = job(llava, tmp_path / "photos", tmp_path / "b", batch=4)
    whole, sizes = tight.backbone._forward, []  # type: ignore[attr-defined]

    def limited(rows: list[Any], *rest: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError
        return whole(rows, *rest)

    monkeypatch.setattr(tight.backbone, "_forward", limited)
    encode(tight, wanted)
    assert {1, 2, 4} <= set(sizes) <= {1, 2, 3, 4}
    torch.testing.assert_close(tight.store.pooled(keys).float(), small.store.pooled(keys).float(), atol=4e-3, rtol=1e-3)
    monkeypatch.setattr(tight.backbone, "_forward", lambda *rest: (_ for _ in ()).throw(torch.OutOfMemoryError()))
    with pytest.raises(UserError, match="image_side"):
        encode(tight, [TextInput("another text")])


def test_the_key_tells_everything_a_feature_depends_on(llava: Path) -> None:
    one = load_backbone(settings(llava), "chat").key
    assert load_backbone(settings(llava), "other name").key == one
    assert load_backbone(settings(llava, device="cpu"), "chat").key == one
    assert load_backbone(settings(llava, layer=1), "chat").key != one
    assert load_backbone(dataclasses.replace(settings(llava), mllm=Mllm(prompts=PROMPTS[::-1], image_side=48)), "chat").key != one
    assert load_backbone(settings(llava, zero_shot=False), "chat").key != one


def test_without_zero_shot_no_answer_is_scored(checkout: Path, llava: Path) -> None:
    assert set(run_stage(llava, "factual", zero_shot=False)) == {"t", "v", "k"}


def test_posts_without_images_are_refused(checkout: Path, llava: Path) -> None:
    manifest(layout.raw("mine"), 4, visual="attributes").write_parquet(layout.manifest("mine"))
    with pytest.raises(UserError, match="reads images"):
        run_stage(llava, "factual")


def test_every_score_has_a_name_of_its_own() -> None:
    names = [*EDITED, *FACTUAL, *pairs.FACTUAL_PAIRS, *pairs.EDITED_PAIRS, *pairs.HELD_PAIRS, "t_held_swap", "v_held_swap", pairs.NOTHING]
    assert len({pairs.score_name(name) for name in names}) == len(names)
