"""The sentence that says what happened."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from causalroute.serving.http.wording import percent, sentence
from causalroute.serving.posts import Explanation, Post, Prediction, Region, Word

POST = Post("fine words #a #b", Image.new("RGB", (4, 4)))
BOTH = {"keep": 0.0, "text": 0.1, "image": 0.0, "both": 0.9}
BIASED = "The biased model (erm) takes it for bad (80 %)."


def words(*context: str) -> tuple[Word, ...]:
    return tuple(Word(word, 0, len(word), word in context) for word in ("fine", "words", "#a", "#b", "x", "y"))


def told(text: float = 2.0, image: float = 1.0, label: str = "good", **changes: Any) -> Prediction:
    """NDE of both sides for `bad`; the answer is `label`."""
    effects = {"NDE_text": {"good": -text, "bad": text}, "NDE_image": {"good": -image, "bad": image}}
    told = {"effects": effects, "gates": BOTH, "experts": (), "words": words("#a", "#b"), "region": Region(1, ((True,),))} | changes
    return Prediction(
        label, {"good": 0.9, "bad": 0.1} if label == "good" else {"good": 0.2, "bad": 0.8}, 0.0, "bad", {"bad": 0.8, "good": 0.2}, Explanation(**told), ()
    )


TWO, ONE = "The hashtags #a and #b and the background speak for bad; ", "The hashtags #a and #b speak for bad; "
THEIRS, GOOD = "with their direct effect removed the post", "reads as good (90 %)."
CASES = (
    (told(), f"{TWO}{THEIRS} {GOOD} {BIASED}"),
    (told(image=0.1), f"{ONE}{THEIRS} {GOOD} {BIASED}"),
    (told(image=-1), f"{ONE[:-2]}, the background speaks for good; {THEIRS} still {GOOD} {BIASED}"),
    (told(text=0, words=words("x")), f"The background speaks for bad; with its direct effect removed the post {GOOD} {BIASED}"),
    (told(image=0, words=words("x", "fine")), f"The words “fine” and “x” speak for bad; {THEIRS}"),
    (told(image=0, words=words("#a", "x", "y", "fine")), "4 words of the context speak for bad;"),
    (told(image=0, words=words("#a"), gates={"keep": 1.0}), f"The hashtag #a speaks for bad; the gate keeps it: the post {GOOD}"),
    (told(image=0, words=()), "The context of the text speaks for bad; with its direct"),
    (told(words=words()), "The background speaks for bad;"),
    (told(text=0, region=None), "The image's context speaks for bad;"),
    (told(gates=BOTH | {"both": 0.1, "text": 0.8}), f"{TWO}the gate removes the direct effect of the text alone: the post {GOOD}"),
    (told(gates={"keep": 1.0}), f"{TWO}the gate keeps them: the post {GOOD}"),
    (told(image=0, gates={"keep": 1.0}), f"{ONE}the gate keeps them: the post {GOOD}"),
    (told(gates={}), f"{TWO}with moe the post {GOOD}"),
    (told(0, 0), f"No context says much on its own; the post {GOOD} {BIASED}"),
    (told(effects={}), f"The post {GOOD} {BIASED}"),
    (told(label="bad"), f"{TWO}{THEIRS} still reads as bad (80 %). The biased model (erm) agrees (80 %)."),
)


@pytest.mark.parametrize(("answer", "expected"), CASES)
def test_what_it_says(answer: Prediction, expected: str) -> None:
    assert sentence(POST, answer, "moe", "erm").startswith(expected)


def test_without_an_image_or_a_reference() -> None:
    answer = Prediction("good", {"good": 1.0}, 0.0, None, None, told(text=0).explanation, ())
    assert sentence(Post("x"), answer, "moe", "") == "No context says much on its own; the post reads as good (100 %)."
    assert sentence(Post("x", attributes="beach"), answer, "moe", "").startswith("The context of the attribute words speaks for bad;")
    assert sentence(Post("x"), Prediction("good", {"good": 1.0}, 0.0, None, None, None, ()), "moe", "") == "The post reads as good (100 %)."


@given(st.floats(0, 1))
def test_percent_never_claims_certainty(p: float) -> None:
    assert (percent(p) == "100 %") == (p == 1)
