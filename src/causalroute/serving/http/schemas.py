"""Fields of requests and answers, as /openapi.json tells them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

TEXT = "what a lovely monday, the office is flooded again #monday #coffee"
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGNgYGAAAAAEAAH2FzhVAAAAAElFTkSuQmCC"
"""A black pixel as PNG, in base64."""


class Closed(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class PostIn(Closed):
    """One post; at least one side says something. Values are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    text: str = Field("", description="the text as it was written", examples=[TEXT])
    image: str | None = Field(None, description="the image file in base64: JPEG, PNG, GIF, WEBP, BMP or TIFF", examples=[DOT])
    attributes: str | None = Field(None, description="attribute words, for a model whose visual side is words (see visual of GET /v1/model)", examples=[None])


class WordOut(Closed):
    """One token of the text."""

    text: str = Field(description="as it stands there", examples=["#monday"])
    start: int = Field(description="offset in characters (code points)", examples=[50])
    end: int = Field(description="one behind the last character", examples=[57])
    context: bool = Field(description="true: taken for context, which may be spurious; false: core", examples=[True])


class RegionOut(Closed):
    """The core mask of the image, squeezed to a square."""

    side: int = Field(description="cells per axis", examples=[2])
    core: list[list[bool]] = Field(description="(side, side), rows from the top, true: core", examples=[[[True, False], [True, True]]])


class ExplanationOut(Closed):
    """Why the model answers as it does."""

    effects: dict[str, dict[str, float]] = Field(
        description="TE, NDE_text, NDE_image, NDE_both, TIE as far as the method has them -> class -> log-odds against the class prior",
        examples=[{"TE": {"literal": -1.2, "sarcastic": 1.2}, "NDE_text": {"literal": 2.1, "sarcastic": -2.1}}],
    )
    gates: dict[str, float] = Field(description="keep, text, image, both -> share: whose direct effect is removed", examples=[{"keep": 0.1, "text": 0.9}])
    experts: list[tuple[str, float]] = Field(description="experts and their weights", examples=[[["text 1", 0.7], ["text 2", 0.3]]])
    words: list[WordOut] = Field(description="the text in tokens")
    region: RegionOut | None = Field(description="null where there is no image, or no core was looked for")


class PredictionOut(Closed):
    """The answer to one post."""

    label: str = Field(description="the likeliest class", examples=["sarcastic"])
    probabilities: dict[str, float] = Field(
        description="class -> probability: mean over training seeds, each after its temperature", examples=[{"literal": 0.1, "sarcastic": 0.9}]
    )
    spread: float = Field(description="standard deviation over training seeds of the probability of the label", examples=[0.02])
    biased_label: str | None = Field(description="the same of the biased reference; null where the model carries none", examples=["literal"])
    biased: dict[str, float] | None = Field(description="its probabilities", examples=[{"literal": 0.8, "sarcastic": 0.2}])
    explanation: ExplanationOut | None = Field(description="null unless asked for with ?explain=true")
    warnings: list[str] = Field(description="what to know of this answer", examples=[["the training seeds do not agree on this post"]])
    sentence: str | None = Field(
        description="the explanation in words; null unless asked for with ?explain=true",
        examples=["The hashtag #monday speaks for literal; with its direct effect removed the post reads as sarcastic (90 %)."],
    )


class BatchOut(Closed):
    """Answers in the order of the posts."""

    predictions: list[PredictionOut]


class ErrorOut(Closed):
    """Every answer that is no success."""

    error: str = Field(description="the problem in one sentence", examples=["the file is not an image"])
    where: str = Field(description="field or post it was found at", examples=["post 3: image"])
    fix: str = Field(description="what to do about it", examples=["formats read: JPEG, PNG, GIF, WEBP, BMP, TIFF"])


class StatusOut(Closed):
    """State of the service."""

    status: str = Field(examples=["ok"])


class ExampleOut(Closed):
    """A post to try."""

    title: str = Field(examples=["Kind words, frowning face"])
    text: str = Field(examples=[TEXT])
    image: str | None = Field(description="address of its picture, relative to the service", examples=["v1/examples/0/image"])
    alt: str = Field(description="the picture in words", examples=["a frowning face on warm stripes"])
    attributes: str | None = Field(description="attribute words", examples=[None])


class ModelOut(Closed):
    """What answers."""

    classes: list[str] = Field(description="in the order of every distribution", examples=[["literal", "sarcastic"]])
    task: str = Field(examples=["sarcasm"])
    dataset: str = Field(description="what it was trained on", examples=["planted"])
    method: str = Field(examples=["causal_moe"])
    reference: str = Field(description="the biased method beside it; empty where there is none", examples=["erm"])
    visual: str = Field(description="image, attributes or none: what it reads beside the text", examples=["image"])
    seeds: list[int] = Field(description="training seeds it averages over", examples=[[0, 1, 2, 3, 4]])
    backbone: Any = Field(description="the frozen encoder")
    results: dict[str, Any] = Field(description="figures of the test splits: method -> split -> metric -> mean and interval")
    made_by: dict[str, Any] = Field(description="version of causalroute, hashes of code, data and settings")
    limits: dict[str, int | float] = Field(description="what one request may cost", examples=[{"body": 10_000_000, "pixels": 24_000_000}])
    ready: bool = Field(description="the model is loaded")
    version: str = Field(description="causalroute that serves it", examples=["0.1.0"])
