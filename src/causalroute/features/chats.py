"""A multimodal LLM as backbone: features of texts, of images and of pairs of both, and how likely it finds each answer.

    t = [answer, text]      states of a chat with the text alone: at the answer position, and their mean over the text
    v = [answer, image]     of a chat with the image alone
    k = [answer, text]      of a chat with both: the joint feature (`causalroute.pairs`); the image comes first, its states know nothing of the text

Answers are scored, and replies written, behind the chat with the posts of `examples` before it where there are any; features are those of the chat without
them, so that what a method trains on has seen no label.

Chats are prepared one by one and gathered by the shapes of their tensors. On a CPU a pass has one chat, which costs nothing there, so that a row depends on
itself alone to the last bit; on a GPU a pass has up to `batch_size` of them, and its company may change the last bit. Where memory does not suffice for a
batch, its halves are tried.

Letters: D width of the model, V prompts, C classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from causalroute.features.backbone import library_versions
from causalroute.features.encode import Encoding, Input, one_thread, ordered_map
from causalroute.features.examples import Example
from causalroute.features.folders import MORE, find_folder, fingerprint
from causalroute.features.progress import Progress
from causalroute.io import canonical_json, sha256_bytes
from causalroute.mllm.chat import BLANK, LIMIT, Chat, Shot
from causalroute.mllm.model import Mllm, bucket
from causalroute.mllm.replies import UNASKED, Speaker

VERSION = "mllm 1: text [answer, text], image [answer, image], pair [answer, text]"
SHARD = 64
"""Inputs per shard: what a killed run loses at most."""
WAITING = 16
"""Batches' worth of prepared images held in memory until a batch of chats of their shape is full."""


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
Results = Mapping[Ask, dict[str, Tensor]]


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
                found |= dict(zip(rows, _finite(self.forward(chats, Ask(0, feature=True)))["pooled"], strict=True))
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


def sides(item: Any) -> tuple[Any, Any]:
    """(text, image) of an input, None for a side that it has not."""
    if hasattr(item, "pair"):
        return item.pair
    return (item, None) if hasattr(item, "text") else (None, item)


def run(job: Encoding, todo: dict[bytes, Input]) -> None:
    """Encodes the inputs and stores them shard by shard."""
    backbone: Any = job.backbone
    progress = Progress(len(todo), "features")
    ready: dict[bytes, dict[str, Tensor]] = {}
    parts: dict[bytes, dict[Ask, dict[str, Tensor]]] = {}
    for digest, ask, tensors in _results(job, backbone, todo):
        rows = parts.setdefault(digest, {})
        rows[ask] = tensors
        if len(rows) == len(backbone.asks(todo[digest])):
            ready[digest] = _joined(parts.pop(digest), backbone.speaker is not None)
            progress.update(1)
        if len(ready) >= SHARD:
            _store(job, ready)
            ready = {}
    if ready:
        _store(job, ready)
    progress.close()


def _joined(rows: Results, replies: bool) -> dict[str, Tensor]:
    """The parts of one input: `pooled` of the first prompt, `scores` (V, C) of all; `replies` () of the first, UNASKED in inputs without one."""
    found = {name: value for row in rows.values() for name, value in row.items() if name != "scores"}
    scores = [rows[ask]["scores"] for ask in sorted(rows, key=lambda ask: ask.prompt) if ask.score]
    if replies:
        found.setdefault("replies", torch.tensor(UNASKED, dtype=torch.int8))
    return found | ({"scores": torch.stack(scores)} if scores else {})


def _store(job: Encoding, ready: dict[bytes, dict[str, Tensor]]) -> None:
    rows = list(ready.values())
    job.store.add(list(ready), _finite({name: torch.stack([row[name] for row in rows]) for name in rows[0]}))


def _finite(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
        fix = "choose another layer, or dtype float32: this one overflows 65504"
        raise UserError("features are not finite in half precision", where="params.yaml: backbones", fix=fix)
    return tensors


def _results(job: Encoding, backbone: ChatBackbone, todo: dict[bytes, Input]) -> Iterator[tuple[bytes, Ask, dict[str, Tensor]]]:
    """(input, what was asked, what is kept of it); chats are prepared and passes run in two pools, a bounded number ahead."""
    # Some architectures keep what the next token of a reply needs in the model itself, where another pass would overwrite it.
    workers = 1 if backbone.model.device.type == "cuda" or backbone.speaker is not None else job.threads
    window = job.threads + 1
    with ThreadPoolExecutor(job.threads, initializer=one_thread) as loaders, ThreadPoolExecutor(workers, initializer=one_thread) as passes:
        made = ordered_map(loaders, lambda pair: (pair[0], backbone.chats(pair[1], job.root)), _in_order(todo), window * backbone.batch_size)
        batches = _batches(made, backbone.batch_size, WAITING * backbone.batch_size // (1 + len(backbone.examples)))
        for names, ask, rows in ordered_map(passes, lambda batch: _pass(backbone, *batch), batches, workers):
            for place, name in enumerate(names):
                yield name, ask, {key: value[place] for key, value in rows.items()}


def _in_order(todo: dict[bytes, Input]) -> list[tuple[bytes, Input]]:
    """Swaps that borrow from the same donor one after the other."""
    neighbours = {digest: getattr(sides(item)[1], "neighbour", str)() for digest, item in todo.items()}
    return sorted(todo.items(), key=lambda pair: neighbours[pair[0]])


def _pass(backbone: ChatBackbone, group: Group, members: Sequence[tuple[bytes, Chat]]) -> tuple[list[bytes], Ask, dict[str, Tensor]]:
    names, chats = [name for name, _ in members], [chat for _, chat in members]
    return names, group[0], backbone.forward(chats, group[0])


def _batches(made: Iterator[tuple[bytes, list[tuple[Ask, Chat]]]], size: int, waiting: int) -> Iterator[tuple[Group, list[tuple[bytes, Chat]]]]:
    """Chats of one shape, asked the same; what waits longest in the largest group goes first where too many wait."""
    groups: dict[Group, list[tuple[bytes, Chat]]] = {}
    for name, chats in made:
        for ask, chat in chats:
            group = (ask, chat.quotes, bucket(chat.length), chat.shapes())
            groups.setdefault(group, []).append((name, chat))
            if len(groups[group]) == size:
                yield group, groups.pop(group)
        if sum(map(len, groups.values())) > waiting:
            largest = max(groups, key=lambda group: len(groups[group]))
            yield largest, groups.pop(largest)
    yield from groups.items()
