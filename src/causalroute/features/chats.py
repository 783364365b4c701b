"""A multimodal LLM as backbone: features of texts, of images and of pairs of both, and how likely it finds each answer.

    t = [answer, text]      states of a chat with the text alone: at the answer position, and their mean over the text
    v = [answer, image]     of a chat with the image alone
    k = [answer, text]      of a chat with both: the joint feature (`causalroute.pairs`); the image comes first, its states know nothing of the text

Answers are scored, and replies written, behind the chat with the posts of `examples` before it where there are any; features are those of the chat without
them, so that what a method trains on has seen no label.

Where memory does not suffice for a batch of chats, its halves are tried. `chat_passes` brings the chats of many inputs through it.

Letters: D width of the model, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from causalroute.config import Backbone as Settings
from causalroute.config import Mllm as MllmSettings
from causalroute.counterfactual.views import MASK
from causalroute.errors import UserError
from causalroute.features.examples import Example
from causalroute.features.folders import MORE, find_folder, fingerprint, library_versions
from causalroute.features.inputs import Input, sides
from causalroute.io import canonical_json, sha256_bytes
from causalroute.mllm.chat import BLANK, LIMIT, Chat, Shot
from causalroute.mllm.model import Mllm, bucket
from causalroute.mllm.replies import Speaker

VERSION = "mllm 1: text [answer, text], image [answer, image], pair [answer, text]"


@dataclass(frozen=True)
class Ask:
    """What is wanted of one chat."""

    prompt: int
    feature: bool = False
    """its states"""
    score: bool = False
    """how likely each answer is"""
    reply: bool = False
    """the class that the model's own reply names"""
    shots: bool = False
    """examples are shown first"""


Group = tuple[Any, ...]


class ChatBackbone:
    """A multimodal LLM as `features.encode` uses it.

    Raises:
        UserError: the checkpoint cannot be found or used.
    """

    has_images = True
    longest = LIMIT
    """tokens of a text that are read"""

    def __init__(self, config: Settings, name: str) -> None:
        if config.mllm is None:
            raise UserError("a backbone of kind mllm needs a section 'mllm'", where=f"params.yaml: backbones.{name}", fix="docs/mllm.md shows one")
        self.settings: MllmSettings = config.mllm
        where = f"params.yaml: backbones.{name}"
        folder = find_folder(config.model, config.revision, more=MORE, where=f"{where}.model")
        self.model = Mllm(folder, config.mllm, where)
        self.batch_size, self.mask_token = (config.batch_size if self.model.device.type == "cuda" else 1), BLANK
        self.text_dim = self.image_dim = self.joint_dim = 2 * self.model.width
        read = dataclasses.replace(config.mllm, device="", zero_shot=False, shots=0, generate=0)
        self.model_key = fingerprint([folder], VERSION, self.model.recipe(), canonical_json(dataclasses.asdict(read)), *library_versions(), more=MORE)
        """digest of what features mean, whatever is asked besides and on whatever device: what a saved model wants again"""
        asked = canonical_json(dataclasses.asdict(dataclasses.replace(config.mllm, device="")))
        self.key = sha256_bytes(self.model_key.encode(), f"{self.model.device.type} {self.batch_size}".encode(), asked.encode())
        self.examples: tuple[Example, ...] = ()
        self.speaker = Speaker(self.model, config.mllm.generate) if config.mllm.generate else None

    def show(self, examples: Sequence[Example], root: Path) -> None:
        """Sets the posts that are shown before every question; the key depends on them, for scores do."""
        self.model.show([Shot(one.text.text, one.image.load(root), one.answer) for one in examples])
        self.key = sha256_bytes(self.key.encode(), *(one.content() for one in examples))
        self.examples = tuple(examples)

    def asks(self, item: Input) -> list[Ask]:
        """What is asked about one input: features need the first prompt alone and no examples, scores all prompts."""
        reply, shots = self.speaker is not None and getattr(item, "replied", False), bool(self.examples)
        rest = [Ask(prompt, score=True, shots=shots) for prompt in range(len(self.settings.prompts))] if self.settings.zero_shot else [Ask(0, shots=shots)]
        first = dataclasses.replace(rest[0], reply=reply)
        if not shots:
            return [dataclasses.replace(first, feature=True), *rest[1:]]
        return [Ask(0, feature=True), *([first] if first.score or first.reply else []), *rest[1:]]

    def chats(self, item: Input, root: Path) -> list[tuple[Ask, Chat]]:
        """The chats of one input, one for each thing that is asked."""
        if len(self.examples) != self.settings.shots:
            raise ValueError(f"{self.settings.shots} examples are to be shown, and {len(self.examples)} were set")
        text, image = sides(item)
        words = None if text is None else text.text.replace(MASK, BLANK)
        picture = None if image is None else image.load(root)
        return [(ask, self.model.chat(words, picture, ask.prompt, ask.shots)) for ask in self.asks(item)]

    def shortens(self, text: str) -> bool:
        """Whether a text is longer than `longest`."""
        return self.model.renderers[0].shortens(text.replace(MASK, BLANK))

    def pooled(self, posts: Sequence[tuple[str | None, Image.Image | None]]) -> Tensor:
        """Features (M, 2D) float16 of M posts, or of one side of a post where the other is None; nothing is stored, and no examples are shown."""
        groups: dict[Group, list[tuple[int, Chat]]] = {}
        for row, (text, image) in enumerate(posts):
            chat = self.model.chat(None if text is None else text.replace(MASK, BLANK), image)
            groups.setdefault((chat.quotes, bucket(chat.length), chat.shapes()), []).append((row, chat))
        found: dict[int, Tensor] = {}
        for members in groups.values():
            for first in range(0, len(members), self.batch_size):
                rows, chats = zip(*members[first : first + self.batch_size], strict=True)
                found |= dict(zip(rows, finite(self.forward(chats, Ask(0, feature=True)))["pooled"], strict=True))
        return torch.stack([found[row] for row in range(len(posts))])

    def forward(self, chats: Sequence[Chat], ask: Ask) -> dict[str, Tensor]:
        """What is kept of B chats, as far as it is asked for: `pooled` (B, 2D) float16, `scores` (B, C) float32, `replies` (B,) int8."""
        try:
            return self._forward(chats, ask)
        except torch.OutOfMemoryError:
            if len(chats) == 1:
                fix = "lower mllm.image_side, load the weights in fewer bits (mllm.quantize) or use a smaller model"
                raise UserError("one chat does not fit the memory of the device", where="params.yaml: backbones", fix=fix) from None
        torch.cuda.empty_cache()
        half = len(chats) // 2
        parts = [self.forward(part, ask) for part in (chats[:half], chats[half:])]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    @torch.inference_mode()
    def _forward(self, chats: Sequence[Chat], ask: Ask) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        read = self.model.read(self.model.collate(chats)) if ask.feature else None
        if read is not None:
            second = read.text if chats[0].quotes else read.image
            found["pooled"] = torch.cat([read.answer, second], 1).cpu().half()
        if ask.score:
            found["scores"] = self.model.log_likelihoods(chats, ask.prompt, read).cpu()
        if ask.reply and self.speaker is not None:
            found["replies"] = self.speaker.classes(chats)
        return found


def finite(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors themselves.

    Raises:
        UserError: one of them has a number that is not finite.
    """
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        fix = "choose another layer, or dtype float32: this one overflows 65504"
        raise UserError("features are not finite in half precision", where="params.yaml: backbones", fix=fix)
    return tensors
