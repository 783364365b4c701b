"""Raw posts as chats, in every view that features exist for: what a method that trains inside a multimodal LLM reads.

A post is found by its id in the manifest and in the editor's file; its views are made as the features were made (`counterfactual.views`), pixels
edited while loading. Labels are not looked at.

Letters: B chats, D width of the language model, K swaps per post.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import torch
from torch import Tensor

from causalroute import layout
from causalroute.config import Backbone
from causalroute.counterfactual.views import FACTUAL, MASK, ImageInput, TextInput, edited_rows, view_inputs
from causalroute.errors import UserError
from causalroute.features.folders import find_folder
from causalroute.mllm.chat import BLANK, Chat
from causalroute.mllm.model import Batch, Mllm, bucket

if TYPE_CHECKING:
    from PIL import Image

KEPT_BYTES = 1 << 30
"""Chats kept in memory from their first use on; those beyond are made anew every time."""
AHEAD = 8
"""Passes whose chats are made before they are sorted by shape."""
HELD = {"t_held_swap": "t_swap", "v_held_swap": "v_swap"}
"""Views of the held-out editor -> their names in its own file."""

Inputs = Sequence[TextInput] | Sequence[ImageInput]


def open_reader(ids: Sequence[str], dataset: str, backbone: str, settings: Backbone, editor: str, held_out: str) -> Reader:
    """The reader of the posts `ids` of a data set.

    Raises:
        UserError: the backbone is no multimodal LLM, or cannot be loaded.
    """
    where = f"params.yaml: backbones.{backbone}"
    if settings.mllm is None:
        raise UserError("raw posts are read with a multimodal LLM, which this backbone is not", where=where, fix="choose a backbone of kind mllm")
    if settings.mllm.layer != -1:
        fix = "let it read the last layer (layer: -1), or take the method out of `methods` of the data set"
        raise UserError("adapters behind the layer that is read would never learn", where=f"{where}.mllm.layer", fix=fix)
    mllm = Mllm(find_folder(settings.model, settings.revision, more=("*.json", "*.jinja"), where=where), settings.mllm, where)
    edited = {name: layout.counterfactuals(dataset, name) for name in dict.fromkeys(filter(None, (editor, held_out)))}
    frames = {name: pl.read_parquet(path) for name, path in edited.items()}
    views = Views(pl.read_parquet(layout.manifest(dataset)), frames.get(editor), frames.get(held_out), layout.reference_image(dataset))
    return Reader(mllm, ids, views, layout.raw(dataset))


class Views:
    """Inputs of the posts of a manifest by view and id; `held` are the counterfactuals of the held-out editor."""

    def __init__(self, manifest: pl.DataFrame, edited: pl.DataFrame | None, held: pl.DataFrame | None, reference: Path) -> None:
        self.manifest, self.reference, self._frames = manifest, reference, (edited, held)
        self.of = cache(self._of)

    def _of(self, view: str) -> tuple[Inputs, Mapping[str, int], int]:
        """The inputs of a view, the place of each post among its rows, and how many inputs a row has."""
        edited, held = self._frames
        frame = held if view in HELD else edited
        inputs: Inputs = view_inputs(self.manifest, frame, HELD.get(view, view), self.reference)
        if view in FACTUAL or frame is None:
            return inputs, {name: place for place, name in enumerate(self.manifest["id"])}, 1
        edited_rows(self.manifest, frame)  # refuses what does not belong together
        return inputs, {name: place for place, name in enumerate(frame["id"])}, len(inputs) // max(frame.height, 1)

    def one(self, view: str, name: str, swap: int) -> TextInput | ImageInput:
        """The input of the post called `name`; `swap` picks one of its K swaps."""
        inputs, place, count = self.of(view)
        if name not in place:
            raise UserError(f"the post has no view {view!r}", where=f"id {name}", fix="run the stage counterfactuals again")
        return inputs[place[name] * count + (swap if count > 1 else 0)]


class Reader:
    """See `methods.base.Reader`.

    Args:
        mllm: frozen.
        ids: of the posts that row numbers stand for.
        views: their inputs.
        root: folder that image paths are relative to.
    """

    def __init__(self, mllm: Mllm, ids: Sequence[str], views: Views, root: Path) -> None:
        self.mllm, self.ids, self.views, self.root = mllm, list(ids), views, root
        self.network, self.width, self.device = mllm.network, mllm.width, mllm.device
        self._kept: dict[tuple[int, str, str, int], Chat] = {}
        self._bytes = 0

    def chat(self, row: int, text: str, image: str, swap: int) -> Chat:
        """One post as a chat."""
        key = (row, text, image, swap)
        if key in self._kept:
            return self._kept[key]
        words = self.views.one(text, self.ids[row], swap)
        assert isinstance(words, TextInput)
        chat = self.mllm.chat(words.text.replace(MASK, BLANK), self._image(self.views.one(image, self.ids[row], swap)))
        size = sum(value.nbytes for value in chat.inputs.values())
        if self._bytes + size <= KEPT_BYTES:
            self._kept[key], self._bytes = chat, self._bytes + size
        return chat

    def _image(self, found: TextInput | ImageInput) -> Image.Image | None:
        if isinstance(found, ImageInput):
            return found.load(self.root)
        if found.text:
            raise UserError("a multimodal LLM wants images; this data set has attribute words", fix="take the method out of `methods` of the data set")
        return None

    def passes(self, rows: Tensor, text: str, image: str, swap: int, size: int) -> Iterator[tuple[Tensor, Batch]]:
        """Chats that can share a pass, at most `size` of them: their positions in `rows` (b,), and the batch."""
        for some in torch.arange(len(rows)).split(AHEAD * size):
            chats = {place: self.chat(int(rows[place]), text, image, swap) for place in some.tolist()}
            groups: dict[tuple[object, ...], list[int]] = {}
            for place, chat in chats.items():
                groups.setdefault((bucket(chat.length), *chat.shapes()), []).append(place)
            for group in groups.values():
                for places in torch.tensor(group).split(size):
                    yield places, self.mllm.collate([chats[place] for place in places.tolist()])

    def states(self, batch: Batch) -> Tensor:
        """(B, D) float32 where the answer begins; gradients flow."""
        return self.mllm.read(batch).answer
