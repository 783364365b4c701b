"""A post as a chat: the image, its text in quotes, the question; and where in the token sequence each of them lies.

The image comes first, so that in a causal model its states do not depend on the text, and those of the text and of the answer depend on both. The
text is put in after the chat template was rendered, so no template sees it, and strings that the tokenizer would read as control tokens are broken up:
a post cannot speak in another role, nor claim an image.

Shots are posts that are shown with their answers in earlier turns of the chat. Their tokens are never taken for those of the post itself.

Letters: L tokens of a chat, image placeholders expanded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from causalroute.config import Mllm, Prompt
from causalroute.errors import UserError
from causalroute.mllm.loading import render

BLANK = "_"
"""What a removed word becomes in a chat."""
LIMIT = 512
"""Tokens kept of a text."""
TILES = ("crop_to_patches", "do_image_splitting")
"""What processors that cut images into tiles call it (InternVL; SmolVLM, Idefics3)."""
CANVAS = "max_image_tiles"
"""What a processor has that cuts whatever is larger than a tile, and cannot be told to leave it (Llama 3.2 Vision)."""
TAIL = 4
"""Tokens at the end of a chat that must be those of the question, whatever the processor did before."""
THIN = 100
"""Longest side of an image in shorter sides: some processors refuse slivers."""
SLOT = "@@post@@"
"""Stands for a post's text while the template is rendered."""
Turn = dict[str, Any]


@dataclass(frozen=True)
class Chat:
    """One chat, ready for the model."""

    inputs: dict[str, Tensor]
    """what the model takes, for one post; tensors of tokens are (1, L), or (1, L, ...) where they say what each token attends to"""
    text: Tensor
    """(L,) bool: tokens of the post's text"""
    image: Tensor
    """(L,) bool: tokens of its image, not of those of shots"""
    quotes: bool
    """whether a text is quoted, be it empty; else the chat is about the image alone"""

    @property
    def length(self) -> int:
        """L."""
        return len(self.text)

    def shapes(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Shapes of what does not grow with the text: chats with equal ones can share a pass."""
        return tuple((name, tuple(value.shape[2 * of_tokens(value, self.length) :])) for name, value in sorted(self.inputs.items()))

    def padded(self, name: str, left: int, right: int, token: int) -> Tensor:
        """An input with places of padding before and behind its tokens, nothing of them shown to the model; as it is where it has no tokens."""
        value = self.inputs[name]
        if not of_tokens(value, self.length):
            return value
        return functional.pad(value, (*[0] * 2 * (value.dim() - 2), left, right), value=token if name == "input_ids" else 0)

    def continued(self, ids: Sequence[int]) -> Chat:
        """The chat with tokens of the reply behind it, which are to the model what its last token was (what that attends to, no part of the image)."""
        new = torch.tensor([list(ids)], dtype=torch.int64)
        inputs = {
            name: torch.cat([value, new if name == "input_ids" else value[:, -1:].expand(-1, len(ids), *value.shape[2:])], 1)
            if of_tokens(value, self.length)
            else value
            for name, value in self.inputs.items()
        }
        none = torch.zeros(len(ids), dtype=torch.bool)
        return Chat(inputs, torch.cat([self.text, none]), torch.cat([self.image, none]), self.quotes)


@dataclass(frozen=True)
class Shot:
    """A post that is shown with its answer."""

    text: str
    image: Image.Image
    answer: str
    """its class"""


def of_tokens(value: Tensor, length: int) -> bool:
    """Whether a tensor has one entry per token. (No image of a chat has as many tiles as the chat has tokens.)"""
    return tuple(value.shape[:2]) == (1, length)


class Renderer:
    """Makes chats of posts for one prompt.

    Args:
        processor: of the checkpoint.
        prompt: how to ask.
        image_token: id of the placeholder in expanded sequences.
        settings: how large images may be, and whether they are cut into tiles.
        shots: posts that are shown first, in this order, whatever the chat is about.
    """

    def __init__(self, processor: Any, prompt: Prompt, image_token: int, settings: Mllm, shots: Sequence[Shot] = ()) -> None:
        self.processor, self.tokenizer, self.prompt = processor, processor.tokenizer, prompt
        self.image_token, self.side = image_token, _longest_side(processor.image_processor, settings)
        self.tiles = {name: settings.tiles for name in TILES if hasattr(processor.image_processor, name)}
        self.control = (*control_strings(self.tokenizer), *role_marks(processor))
        self.shots = [(self._cut(harmless(shot.text, self.control)), scaled(shot.image, self.side), prompt.answers[shot.answer]) for shot in shots]
        self.frames = {(text, image): self._frame(text, image) for text in (False, True) for image in (False, True)}
        self.earlier = self._earlier() if shots else 0

    def _asked(self, text: bool, image: bool) -> Turn:
        """The turn that asks about a post."""
        quoted = self.prompt.text.replace("{text}", SLOT) + "\n" if text else ""
        content: list[dict[str, str]] = [{"type": "image"}] if image else []
        return {"role": "user", "content": [*content, {"type": "text", "text": quoted + self.prompt.question}]}

    def _shown(self) -> list[Turn]:
        """The turns of the shots."""
        return [turn for _, _, reply in self.shots for turn in (self._asked(True, True), said("assistant", reply))]

    def _frame(self, text: bool, image: bool) -> tuple[str, str]:
        """The rendered chat before and behind the post's text."""
        turns = [*self._shown(), self._asked(text, image)]
        pieces = render(self.processor, turns, reply=True).split(SLOT)
        if pieces[-1].rstrip().endswith("<think>"):
            raise UserError("the model thinks aloud before it answers, so that its answer has no place", fix="use a checkpoint that is not made for reasoning")
        if len(pieces) != len(self.shots) + int(text) + 1:
            raise UserError("the chat template of the model does not repeat what it is given", fix="use a checkpoint whose template shows the user's text")
        shown = "".join(piece + words for piece, (words, _, _) in zip(pieces, self.shots, strict=False))
        before, *behind = pieces[len(self.shots) :]
        return shown + before, "".join(behind)

    def _earlier(self) -> int:
        """Image tokens of the shots. All are shown twice to count them, for a lone image may be cut finer than one of several (LLaVA-OneVision)."""
        found = self._processed(render(self.processor, 2 * self._shown(), reply=False), 2 * [image for _, image, _ in self.shots])
        return int((found["input_ids"] == self.image_token).sum()) // 2

    def answer_ids(self, words: str) -> list[int]:
        """Tokens of an answer as they stand behind the question: with the white space that the template puts before a reply, if any."""
        asked = self._asked(False, False)
        before, whole = render(self.processor, [asked], reply=True), render(self.processor, [asked, said("assistant", words)], reply=False)
        gap = whole[len(before) :].partition(words)[0] if whole.startswith(before) else ""
        gap = gap if gap.isspace() else ""
        first, both = (self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (before, before + gap + words))
        if both[: len(first)] == first and len(both) > len(first):
            return list(both[len(first) :])
        return list(self.tokenizer(gap + words, add_special_tokens=False)["input_ids"])

    def __call__(self, text: str | None, image: Image.Image | None) -> Chat:
        """The chat of a post, or of one side of it where the other is None.

        Raises:
            UserError: the tokens of the text cannot be found again.
        """
        before, behind = self.frames[text is not None, image is not None]
        inside = self._cut(harmless(text or "", self.control))
        images = [shown for _, shown, _ in self.shots] + ([] if image is None else [scaled(image, self.side)])
        found = self._processed(before + inside + behind, images)
        ids = found["input_ids"][0]
        inputs = {name: value for name, value in found.items() if isinstance(value, Tensor)}
        pictured = ids == self.image_token
        own = pictured & (pictured.cumsum(0) > self.earlier) if image is not None else torch.zeros_like(pictured)
        return Chat(inputs, self._places(before, inside, behind, ids), own, text is not None)

    def _processed(self, rendered: str, images: list[Image.Image]) -> Any:
        """What the model takes of one rendered chat."""
        begun = bool(self.tokenizer.bos_token) and rendered.startswith(self.tokenizer.bos_token)  # by the template: not once more by the tokenizer
        plain = {"return_tensors": "pt", "add_special_tokens": not begun, "truncation": False, "padding": False}
        try:
            return self.processor(text=[rendered], images=[images] if images else None, **plain, **(self.tiles if images else {}))
        except ValueError as error:
            sizes = ", ".join(f"{image.width} x {image.height}" for image in images) or "no image"
            fix = "take the post out, or mend its image"
            raise UserError(f"the model's preprocessing refuses a chat ({sizes}): {str(error).splitlines()[0]}", fix=fix) from error

    def shortens(self, text: str) -> bool:
        """Whether a chat shows the beginning of the text alone."""
        whole = harmless(text, self.control)
        return self._cut(whole) != whole

    def _cut(self, text: str) -> str:
        """At most `LIMIT` tokens of the text."""
        offsets = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
        return text if len(offsets) <= LIMIT else text[: offsets[LIMIT][0]]

    def _places(self, before: str, inside: str, behind: str, ids: Tensor) -> Tensor:
        """Tokens that show part of the text, (L,) bool: counted from the end, for the image before it grows when it is expanded."""
        plain = self.tokenizer(before + inside + behind, return_offsets_mapping=True, add_special_tokens=False)
        first, last = len(before), len(before) + len(inside)
        spans = [(number - len(plain["input_ids"])) for number, (a, b) in enumerate(plain["offset_mapping"]) if a < last and b > first]
        places = torch.zeros(len(ids), dtype=torch.bool)
        first_seen = min([-TAIL, *spans])
        if ids[first_seen:].tolist() != plain["input_ids"][first_seen:]:
            raise UserError("the tokens of a post's text cannot be found in its chat", fix="use a checkpoint whose processor adds nothing behind the text")
        places[spans] = True
        return places


def require_plain(prompts: Iterable[Prompt], tokenizer: Any, image_token: int, where: str) -> None:
    """Checks that no prompt holds a special token or the place of an image: unlike those of a post's text, they would be read as such.

    Raises:
        UserError: one does.
    """
    words = [part for prompt in prompts for part in (prompt.question, prompt.text, *prompt.answers.values())]
    for mark in sorted({*map(str, tokenizer.all_special_tokens), str(tokenizer.convert_ids_to_tokens(image_token))}):
        if any(mark in part for part in words if len(mark) > 1):
            fix = "word it differently; a question made by `causalroute train` names the class labels, which then need another name in the table"
            raise UserError(f"a prompt holds {mark!r}, which the model reads as a mark of its own", where=where, fix=fix)


def control_strings(tokenizer: Any) -> tuple[str, ...]:
    """Strings of two visible characters or more that the tokenizer reads as one token of their own, longest first."""
    found = {str(token) for token in [*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()]}
    return tuple(sorted((token for token in found if len(token.strip()) > 1), key=lambda token: (-len(token), token)))


def harmless(text: str, control: Iterable[str]) -> str:
    """The text with a space behind the first visible character of every control string in it."""
    for token in control:
        place = len(token) - len(token.lstrip()) + 1
        while token in text:
            text = text.replace(token, f"{token[:place]} {token[place:]}")
    return text


def scaled(image: Image.Image, side: int) -> Image.Image:
    """The image, scaled down where its longer side exceeds `side` pixels, and widened where it is a sliver."""
    longer = max(image.size)
    target = min(longer, side or longer)
    width, height = (max(round(length * target / longer), -(-target // THIN)) for length in image.size)
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BICUBIC)


def _longest_side(image_processor: Any, settings: Mllm) -> int:
    """`image_side`, or less where an image would else be cut that is to stay whole; 0: none."""
    if settings.tiles or not hasattr(image_processor, CANVAS):
        return settings.image_side
    tile = min(image_processor.size["height"], image_processor.size["width"])
    return min(settings.image_side or tile, tile)


def said(role: str, text: str) -> Turn:
    """A turn of text alone."""
    return {"role": role, "content": [{"type": "text", "text": text}]}


def role_marks(processor: Any) -> tuple[str, ...]:
    """Plain text by which a chat template changes roles, such as "ASSISTANT:" or "[/INST]": between turns, and on the line before the first."""
    pieces = render(processor, [said("user", SLOT), said("assistant", SLOT), said("user", SLOT)], reply=True).split(SLOT)
    between = " ".join([pieces[0].splitlines()[-1] if pieces[0] else "", *pieces[1:]])
    for token in control_strings(processor.tokenizer):
        between = between.replace(token, " ")
    return tuple(sorted(set(re.findall(r"\[/?\w+\]|[\w#]+:", between)), key=lambda mark: (-len(mark), mark)))
