"""Posts that a multimodal LLM is shown with their answers before it is asked about another one: few-shot prompts.

They come from the train split alone, drawn once, the same for every post, and as many of each class as of any other as far as that goes. A shown post that
is itself asked about is asked about with the same posts before it: its own answer stands in its chat, so few-shot answers to train posts tell nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from causalroute.config import Mllm
from causalroute.counterfactual.paired import pair_inputs
from causalroute.counterfactual.views import ImageInput, TextInput
from causalroute.errors import UserError
from causalroute.rng import generator


@dataclass(frozen=True)
class Example:
    """A post that is shown with its answer."""

    id: str
    text: TextInput
    image: ImageInput
    answer: str
    """its class"""

    def content(self) -> bytes:
        """What the chats that it is shown in depend on."""
        return "\n".join((self.text.content_key(), self.image.content_key(), self.answer)).encode()


def draw(manifest: pl.DataFrame, classes: int, shots: int, seed: int) -> list[int]:
    """Rows of the manifest that are shown, in their order.

    Args:
        manifest: N rows.
        classes: labels are numbers below this one.
        shots: how many rows.
        seed: of the draw.

    Raises:
        UserError: the train split has fewer posts.
    """
    train = manifest.with_row_index("row").filter((pl.col("split") == "train") & pl.col("label").is_not_null())
    if train.height < shots:
        what = f"{shots} posts are to be shown, and the train split has {train.height}"
        raise UserError(what, where="params.yaml: backbones", fix="lower mllm.shots")
    rng = generator(seed, "shots")
    waiting = [rng.permutation(train.filter(pl.col("label") == label)["row"].to_numpy()).tolist() for label in range(classes)]
    first = rng.permutation(classes)  # who is one ahead where the classes do not divide the shots
    rounds = [waiting[label][place] for place in range(shots) for label in first if place < len(waiting[label])]
    return list(rng.permutation(rounds[:shots]).tolist())


def examples(manifest: pl.DataFrame, classes: Sequence[str], settings: Mllm, reference: Path) -> tuple[Example, ...]:
    """The posts that are shown before those of a data set.

    Args:
        manifest: N rows, with images.
        classes: names of the labels.
        settings: how many, and the seed.
        reference: image of posts without one.

    Raises:
        UserError: there are too few, or they are of classes that the prompts have no answer for.
    """
    unknown = sorted(set(classes) ^ set(settings.prompts[0].answers))
    if unknown:
        fix = "let every prompt name one answer for each class of the data set"
        raise UserError(f"the classes of the data set and those of the answers differ in {unknown}", where="params.yaml: backbones", fix=fix)
    pairs, ids, labels = pair_inputs(manifest, None, "k", reference), manifest["id"], manifest["label"]
    return tuple(Example(ids[row], *pairs[row].pair, classes[labels[row]]) for row in draw(manifest, len(classes), settings.shots, settings.shots_seed))
