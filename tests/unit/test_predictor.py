"""A saved model answers as the run did, on posts of the run and on others, with what it takes to know why."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from tests.unit.finished_run import NAME, finish, posts_of, read_config, written

from causalroute import layout
from causalroute.counterfactual.pixels import unpack_mask
from causalroute.data.images import ImageError
from causalroute.errors import UserError
from causalroute.serving.assemble import assemble
from causalroute.serving.posts import Post, Prediction
from causalroute.serving.predictor import Predictor

pytestmark = pytest.mark.slow

KINDS = ("clip", "pair")
CLOSE = 2e-3
"""Features are rounded to half precision after arithmetic in batches of other sizes."""


@pytest.fixture(scope="module", params=KINDS)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finish(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def model(root: Path) -> Path:
    folder = root / "model"
    assemble(root, NAME, "causal_moe", folder)
    return folder


@pytest.fixture(scope="module")
def predictor(model: Path) -> Predictor:
    return Predictor.load(model)


def table(predictions: list[Prediction]) -> np.ndarray:
    return np.array([list(one.probabilities.values()) for one in predictions])


@pytest.mark.parametrize("method", ["causal_moe", "causal_moe@learned", "double_swap", "subtraction", "bag_of_words"])
def test_answers_are_those_of_the_run(root: Path, tmp_path: Path, method: str) -> None:
    assemble(root, NAME, method, tmp_path / "model")
    predictor = Predictor.load(tmp_path / "model")
    _, posts = posts_of(root, "ood")
    found = predictor.predict(posts)
    np.testing.assert_allclose(table(found), written(root, predictor, method, "ood"), atol=CLOSE)
    biased = np.array([list((one.biased or {}).values()) for one in found])
    np.testing.assert_allclose(biased, written(root, predictor, "erm", "ood"), atol=CLOSE)
    assert all(one.label == predictor.classes[row.argmax()] and one.explanation is None for one, row in zip(found, table(found), strict=True))


def test_words_and_regions_are_those_of_the_editor(root: Path, predictor: Predictor) -> None:
    rows, posts = posts_of(root, "id")
    made = rows.select("id").join(pl.read_parquet(root / layout.counterfactuals(NAME, "mine")), on="id", how="left", maintain_order="left")
    found = [one.explanation for one in predictor.predict(posts, explain=True)]
    for why, spans, bits, side in zip(found, made["context_spans"], made["mask"], made["mask_side"], strict=True):
        assert why is not None
        assert why.region is not None
        assert [(word.start, word.end) for word in why.words if word.context] == [(span["start"], span["end"]) for span in spans]
        assert (np.array(why.region.core) == unpack_mask(bits, side)).mean() > 0.98
    assert any(word.context for why in found if why for word in why.words)


def test_effects_and_gates_are_those_of_the_run(root: Path, predictor: Predictor) -> None:
    _, posts = posts_of(root, "id")
    rows = [pl.read_parquet(root / layout.run(NAME, "causal_moe", seed, seed) / "predictions.parquet").filter(split="id", view="factual") for seed in (0, 1)]
    found = [one.explanation for one in predictor.predict(posts, explain=True)]
    for name, column in {"TE": "te", "NDE_text": "nde_t", "NDE_image": "nde_v", "NDE_both": "nde_tv"}.items():
        mean = np.mean([np.array(one[column].to_list()) for one in rows], 0)
        mine = np.array([list(why.effects[name].values()) for why in found if why])
        np.testing.assert_allclose(mine, mean, atol=0.05)
    first = found[0]
    assert first is not None
    assert first.effects["TIE"]["literal"] == pytest.approx(first.effects["TE"]["literal"] - first.effects["NDE_both"]["literal"])
    gates = np.mean([np.array(one["gates"].to_list()) for one in rows], 0)
    np.testing.assert_allclose(np.array([list(why.gates.values()) for why in found if why]).mean(0), gates.mean(0), atol=0.05)
    assert [name for name, _ in first.experts] == [f"{kind} {number}" for kind in ("keep", "text", "image", "both") for number in (1, 2)]
    assert sum(weight for _, weight in first.experts) == pytest.approx(1)


def test_company_changes_nothing(root: Path, predictor: Predictor) -> None:
    _, posts = posts_of(root, "ood")
    alone = [predictor.predict([post], explain=True)[0] for post in posts[:6]]
    together = predictor.predict(posts, explain=True)[:6]
    np.testing.assert_allclose(table(alone), table(together), atol=CLOSE)
    assert [one.explanation.words for one in alone if one.explanation] == [one.explanation.words for one in together if one.explanation]


def test_threads_take_turns(root: Path, predictor: Predictor) -> None:
    _, posts = posts_of(root, "ood")
    found: dict[int, list[Prediction]] = {}
    threads = [threading.Thread(target=lambda n=number: found.__setitem__(n, predictor.predict(posts[n : n + 3]))) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == predictor.predict(posts[number : number + 3]) for number in range(4))


def test_a_post_may_lack_a_side(root: Path, predictor: Predictor) -> None:
    _, posts = posts_of(root, "id")
    text, image = predictor.predict([Post(text="so much fun"), Post(image=posts[0].image)], explain=True)
    assert "no image" in text.warnings[0]
    assert text.explanation is not None
    assert text.explanation.region is None
    assert image.explanation is not None
    assert image.explanation.words == ()
    with pytest.raises(UserError, match="post 2 has nothing that this model reads"):
        predictor.predict([posts[0], Post("  ")])
    assert predictor.predict([]) == []


def test_pictures_in_memory_count_as_files(root: Path, predictor: Predictor) -> None:
    _, posts = posts_of(root, "id")
    shown = posts[0].image
    assert isinstance(shown, Path)
    with Image.open(shown) as picture:
        assert predictor.predict([Post(posts[0].text, picture.convert("RGBA"))]) == predictor.predict([posts[0]])


def test_long_texts_and_bad_images_are_told(root: Path, predictor: Predictor, tmp_path: Path) -> None:
    (long,) = predictor.predict([Post("sun rain " * 60)])
    assert any("was cut off" in told for told in long.warnings)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    with pytest.raises(ImageError):
        predictor.predict([Post("sun", tmp_path / "broken.png")])
    with pytest.raises(ImageError, match="no such image"):
        predictor.predict([Post("sun", tmp_path / "absent.png")])
    with pytest.raises(ImageError, match="too large"):
        predictor.predict([Post("sun", Image.new("1", (20000, 20000)))])


def test_the_folder_is_all_that_is_needed(root: Path, model: Path, tmp_path: Path, predictor: Predictor) -> None:
    _, posts = posts_of(root, "id")
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    hidden = [(root / name, root / f"{name}.hidden") for name in ("data", "models", "features", "counterfactuals", "tiny")]
    pictures = [Post(post.text, Image.open(post.image).convert("RGB")) for post in posts[:5] if isinstance(post.image, Path)]
    for there, gone in hidden:
        there.rename(gone)
    try:
        assert Predictor.load(moved).predict(pictures) == predictor.predict(pictures)
    finally:
        for there, gone in hidden:
            gone.rename(there)


def test_one_run_one_model(root: Path, model: Path, tmp_path: Path) -> None:
    assemble(root, NAME, "causal_moe", tmp_path / "again")
    mine = {path.relative_to(model): path.read_bytes() for path in model.rglob("*") if path.is_file()}
    again = {path.relative_to(tmp_path / "again"): path.read_bytes() for path in (tmp_path / "again").rglob("*") if path.is_file()}
    assert mine == again
    config = read_config(model)
    assert config["seeds"] == [0, 1]
    assert config["reference"] == "erm"
    assert str(root) not in (model / "config.json").read_text()


def test_another_backbone_is_refused(model: Path, root: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(model, tmp_path / "model")
    weights = next((moved / "backbone").rglob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(UserError, match="not the one that the model was trained on"):
        Predictor.load(moved).warm()
    Predictor.load(moved, backbone=str(root / "tiny") if (root / "tiny" / "config.json").exists() else str(_named(root, tmp_path))).warm()


def _named(root: Path, tmp_path: Path) -> Path:
    """The folders of an encoder pair under the names of its settings."""
    for side in ("text", "image"):
        shutil.copytree(root / "tiny" / side, tmp_path / "pair" / f"{side}_model")
    return tmp_path / "pair"


def test_what_cannot_be_read_or_written_is_told(root: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no saved model"):
        Predictor.load(tmp_path)
    broken = shutil.copytree(model, tmp_path / "model")
    (broken / "erm.safetensors").unlink()
    with pytest.raises(UserError, match="weights of 'erm' are missing"):
        Predictor.load(broken)
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something"):
        assemble(root, NAME, "erm", full)
    with pytest.raises(UserError, match="has no method 'poe'"):
        assemble(root, NAME, "poe", tmp_path / "poe")
    with pytest.raises(UserError, match="no data set"):
        assemble(root, "other", "erm", tmp_path / "other")
    (root / layout.run(NAME, "erm", 1, 1) / "weights.safetensors").rename(tmp_path / "kept")
    with pytest.raises(UserError, match="a file of the run is missing"):
        assemble(root, NAME, "erm", tmp_path / "erm")
    (tmp_path / "kept").rename(root / layout.run(NAME, "erm", 1, 1) / "weights.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "model"]
