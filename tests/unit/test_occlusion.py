"""Double occlusion: a token that works alone is context, a token that needs the other side is core."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.unit.test_lexicon import make
from tests.unit.test_text_surface import f1, planted
from tests.unit.tiny_models import save_clip

from causalroute.config import Backbone, Editor
from causalroute.counterfactual.posts import UNKNOWN, Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import find, occlusion, vanilla
from causalroute.counterfactual.text.occlusion import MIN_POSTS, Effect
from causalroute.counterfactual.tokens import tokenize
from causalroute.errors import UserError
from causalroute.rng import generator

EDITOR = Editor(text="occlusion", image="random")
FAKE = (Backbone(kind="encoder_pair", text_model="none"), "fake")
WIDTH = 32


@cache
def direction(word: str) -> NDArray[np.float64]:
    return generator(0, "word", word).normal(size=WIDTH)


def featurise(texts: Sequence[str]) -> NDArray[np.float32]:
    """A bag of words, each word a fixed random direction: (n, WIDTH)."""
    made = [sum((direction(token.key) for token in tokenize(text)), np.zeros(WIDTH)) for text in texts]
    return np.array(made, dtype=np.float32)


class Words:
    """A stand-in backbone that remembers what it encoded."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.known: dict[str, NDArray[np.float32]] = {}

    def __call__(self, texts: list[str], sources: Sources) -> NDArray[np.float32]:
        self.texts += texts
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known |= dict(zip(new, featurise(new), strict=True))
        return np.stack([self.known[text] for text in texts])


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests that only compare need no good model."""
    monkeypatch.setattr(vanilla, "STEPS", 20)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    found = Words()
    monkeypatch.setattr(occlusion, "_encode", found)
    return found


def sources_of(posts: Posts, image: NDArray[np.float32]) -> Sources:
    place = {name: row for row, name in enumerate(posts.ids)}
    text = featurise(posts.texts)

    def features(ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = [place[name] for name in ids]
        return text[rows], image[rows]

    return Sources(Path(), backbone=FAKE, features=features)


def sarcastic(items: int, rho: float = 0.9) -> tuple[Posts, Sources]:
    """Label = [polarity of the text != polarity of the image]; a hashtag copies the label with probability rho."""
    random = np.random.default_rng(0)
    text, image = random.integers(0, 2, (2, items))
    labels = text ^ image
    cue = np.where(random.random(items) < rho, labels, 1 - labels)
    polar = np.array([["dire", "grim"], ["fine", "neat"]])[text, random.integers(0, 2, items)]
    nouns = random.choice(["bread", "rain", "bus", "door"], items)
    tags = np.array([["#east", "#west"], ["#north", "#south"]])[cue, random.integers(0, 2, items)]
    posts = make([f"the {noun} is {word} {tag}" for noun, word, tag in zip(nouns, polar, tags, strict=True)], labels.tolist())
    seen = np.stack([2.0 * image - 1, random.normal(size=items)], axis=1) + 0.1 * random.normal(size=(items, 2))
    return posts, sources_of(posts, seen.astype(np.float32))


@pytest.mark.slow
def test_direct_effects_are_context_and_needed_words_are_core(words: Words) -> None:
    posts, sources = sarcastic(1200)
    found = occlusion.effects(posts, Editor(text="occlusion", image="random", z=0.0), sources)
    tags, polar = ("#east", "#west", "#north", "#south"), {"dire", "grim", "fine", "neat"} & set(found)
    assert polar, "with a bar of 0 words are asked about too"
    assert all(found[tag].context and found[tag].core < occlusion.CORE for tag in tags)
    assert all(not found[word].context and found[word].core > 0.7 for word in polar)
    marked = find(posts, EDITOR, sources).marks
    assert all(mark.tolist() == [False] * 4 + [True] for mark in marked)


def test_nothing_is_context_where_nothing_is_planted(words: Words) -> None:
    posts, sources = sarcastic(1200, rho=0.5)
    assert not np.concatenate(find(posts, EDITOR, sources).marks).any()
    assert not words.texts, "what the labels do not know is not even asked about"


def test_planted_truth(words: Words) -> None:
    """The benchmark's own texts, at its own strength."""
    posts, true = planted(1200)
    random = np.random.default_rng(1)
    image = random.normal(size=(len(posts.ids), 4)).astype(np.float32)
    assert f1(find(posts, EDITOR, sources_of(posts, image)).marks, true) >= 0.95


def test_cost_is_bounded_by_types_and_not_by_posts(words: Words, quick: None) -> None:
    posts, sources = sarcastic(1200)
    find(posts, EDITOR, sources)
    assert len(words.texts) == 4 * occlusion.OCCURRENCES
    assert all(len(tokenize(text)) == 4 for text in words.texts), "the hashtag is gone, all else is there"


def test_the_draw_is_fixed_and_test_labels_are_not_read(words: Words, quick: None) -> None:
    posts, sources = sarcastic(300)
    train = np.arange(300) < 250
    hidden, wrong = (
        Posts(posts.ids, posts.texts, posts.tokens, np.where(train, posts.labels, other), train) for other in (np.full(300, UNKNOWN), 1 - posts.labels)
    )
    assert occlusion.effects(hidden, EDITOR, sources) == occlusion.effects(wrong, EDITOR, sources)


def test_attribute_words_are_occluded_on_their_own_side(words: Words, quick: None) -> None:
    posts, sources = sarcastic(300)
    assert sources.features is not None
    swapped = Sources(Path(), backbone=FAKE, features=lambda ids: sources.features(ids)[::-1])  # type: ignore[misc]
    assert occlusion.effects(posts, EDITOR, swapped, "attributes") == occlusion.effects(posts, EDITOR, sources, "text")


def test_rare_surface_tokens_are_judged_together(words: Words) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 600)
    texts = [f"the bus is late{f' #tag{i}' if random.random() < (0.9 if label else 0.1) else ''}" for i, label in enumerate(labels)]
    posts = make([*texts, "the bus #new is late", "#love is late"], [*labels.tolist(), 0, 1], [True] * 600 + [False] * 2)
    sources = sources_of(posts, random.normal(size=(602, 3)).astype(np.float32))
    assert set(occlusion.candidates(posts, occlusion.types(posts), 5.0)) == {"rare hashtag"}
    found = find(posts, EDITOR, sources).marks
    assert found[600].tolist() == [False, False, True, False, False]
    assert not found[601].any(), "a sentiment word stays core, as a hashtag too"


def test_guarded_and_rare_words_are_not_asked_about() -> None:
    texts = ["not good #sad bus"] * 100 + ["tram late odd"] * 100 + ["seldom"] * (MIN_POSTS - 1)
    posts = make(texts, [0] * 100 + [1] * 100 + [0] * (MIN_POSTS - 1))
    found = occlusion.candidates(posts, occlusion.types(posts), 1.0)
    assert {"bus", "tram"} <= set(found)
    assert not {"not", "good", "#sad", "seldom"} & set(found)


@pytest.mark.parametrize(
    ("kind", "direct", "error", "need", "context"),
    [
        ("hashtag", 0.5, 0.05, 0.2, True),
        ("hashtag", 0.2, 0.01, 0.0, False),  # too weak
        ("hashtag", 0.5, 0.2, 0.1, False),  # too unsure
        ("hashtag", 0.5, 0.05, 0.6, False),  # needs the image
        ("word", 0.5, 0.05, 0.2, False),  # words have a higher bar
        ("word", 1.5, 0.05, 0.2, True),
    ],
)
def test_the_rule(kind: str, direct: float, error: float, need: float, context: bool) -> None:
    assert Effect(kind, direct, error, need).context == context


def test_what_is_missing_is_told() -> None:
    posts = make(["bus #a", "tram #b"] * 30, [0, 1] * 30)
    with pytest.raises(UserError, match="needs a backbone"):
        find(posts, EDITOR, Sources(Path()))
    with pytest.raises(UserError, match="there is none"):
        find(posts, EDITOR, sources_of(posts, np.full((60, 3), 0.1, dtype=np.float32)))


def test_f_sees_what_is_there_and_answers_without_the_other_side() -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(800, 3)).astype(np.float32) * 5 + 7 for _ in range(2))
    labels = ((a[:, 0] > 7) ^ (b[:, 0] > 7)).astype(int)
    posts = make(["x"] * 800, labels.tolist())
    f = vanilla.train(posts, a, b, 0)
    assert np.allclose(f.score(a, b).sum(axis=1), 0, atol=1e-5)
    assert (f.score(a, b).argmax(1) == labels).mean() > 0.8, "an exclusive or is learnt"
    assert np.abs(f.score(a, None)).mean() < np.abs(f.score(a, b)).mean() / 2, "one side alone says nothing"


def test_a_real_encoder_is_asked_in_batches_each_text_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from causalroute.features.dual_encoder import DualEncoder

    rows: list[int] = []
    own = DualEncoder.text_features
    monkeypatch.setattr(DualEncoder, "text_features", lambda self, ids, mask: (rows.append(len(ids)), own(self, ids, mask))[1])
    settings = Backbone(kind="dual_encoder", model=str(save_clip(tmp_path / "clip")), batch_size=8)
    texts = [f"the sun {'shines ' * (i % 3)}" for i in range(30)]
    found = occlusion._encode(texts, Sources(tmp_path, backbone=(settings, "tiny")))
    assert rows == [8], "three distinct texts, one padded length"
    assert (found[0] == found[3]).all()
    assert found.shape == (30, 48)
    assert occlusion._encode(texts, Sources(tmp_path, backbone=(settings, "tiny"))).tolist() == found.tolist()
    assert rows == [8], "kept in the feature store"
