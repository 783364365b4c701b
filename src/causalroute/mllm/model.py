"""A frozen multimodal LLM that reads posts: batches of chats in, states and log-likelihoods of answers out.

Chats of a batch are padded on the right: in a causal model nothing behind the answer position changes what lies before it, so a post's states do not
depend on what it shares a batch with, for every architecture alike.

Letters: B chats, L tokens, D width of the language model, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from causalroute.config import Mllm as Settings
from causalroute.io import canonical_json
from causalroute.mllm.chat import BLANK, LIMIT, THIN, Chat, Renderer, Shot, require_plain
from causalroute.mllm.loading import image_token_id, load

BUCKET = 16
"""Chats are padded to a multiple of this many tokens: a length of their own, so that a pass has the same shape whatever else is in it."""


@dataclass(frozen=True)
class Batch:
    """Chats of one pass, padded on the right."""

    inputs: dict[str, Tensor]
    """what the model takes"""
    answer: Tensor
    """(B,) position of the last token of each chat: what it says comes next"""
    text: Tensor
    """(B, L) bool"""
    image: Tensor
    """(B, L) bool"""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        return Batch({name: value.to(device) for name, value in self.inputs.items()}, *(x.to(device) for x in (self.answer, self.text, self.image)))


@dataclass(frozen=True)
class Read:
    """What is read from the states of B chats, (B, D) float32 each."""

    answer: Tensor
    """at the answer position"""
    text: Tensor
    """mean over the tokens of the text; 0 without any"""
    image: Tensor
    """mean over the tokens of the image; 0 without any"""


class Mllm:
    """See the module.

    Args:
        folder: checkpoint in HuggingFace format.
        settings: how it is asked and run.
        where: what to name in an error.

    Raises:
        UserError: the checkpoint cannot be used.
    """

    def __init__(self, folder: Path, settings: Settings, where: str) -> None:
        self.settings, self.device = settings, _device(settings.device)
        self.network, self.processor = load(folder, settings, where=where)
        if settings.device != "spread" and settings.quantize == "none":
            self.network.to(self.device)
        self.width: int = self.network.config.get_text_config().hidden_size
        self.image_token = image_token_id(self.network, where)
        require_plain(settings.prompts, self.processor.tokenizer, self.image_token, where)
        self.renderers = [Renderer(self.processor, prompt, self.image_token, settings) for prompt in settings.prompts]
        self.showing: list[Renderer] = []
        self.classes = sorted(settings.prompts[0].answers)
        asked = zip(self.renderers, settings.prompts, strict=True)
        self.answers = [[renderer.answer_ids(prompt.answers[name]) for name in self.classes] for renderer, prompt in asked]
        tokenizer = self.processor.tokenizer
        self.pad: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    def show(self, shots: Sequence[Shot]) -> None:
        """Sets the posts that chats with `shots` begin with."""
        self.showing = [Renderer(self.processor, prompt, self.image_token, self.settings, shots) for prompt in self.settings.prompts]

    def chat(self, text: str | None, image: Image.Image | None, prompt: int = 0, shots: bool = False) -> Chat:
        """The chat of a post, or of one side of it where the other is None; with the posts of `show` before it if `shots`."""
        return (self.showing if shots else self.renderers)[prompt](text, image)

    def collate(self, chats: Sequence[Chat], said: int = 0) -> Batch:
        """Chats of equal `shapes()` as one batch; L is a multiple of `BUCKET`, for the chats and for the `said` tokens of a reply behind them."""
        length = bucket(max(chat.length for chat in chats) - said) + bucket(said)
        first = chats[0]
        inputs = {name: torch.cat([chat.padded(name, 0, length - chat.length, self.pad) for chat in chats]) for name in first.inputs}
        places = (torch.stack([functional.pad(getattr(chat, side), (0, length - chat.length)) for chat in chats]) for side in ("text", "image"))
        return Batch(inputs, torch.tensor([chat.length - 1 for chat in chats]), *places)

    def states(self, batch: Batch) -> Tensor:
        """Hidden states (B, L, D) of the chosen layer; gradients flow where parameters ask for them."""
        batch = batch.to(self.device)
        layer = self.settings.layer
        found = self.network.model(**self.typed(batch.inputs), use_cache=False, output_hidden_states=layer != -1)
        return found.last_hidden_state if layer == -1 else found.hidden_states[layer]

    def typed(self, inputs: dict[str, Tensor]) -> dict[str, Any]:
        """Pixels in the model's own type."""
        dtype = self.network.dtype
        return {name: value.to(dtype) if value.is_floating_point() else value for name, value in inputs.items()}

    def read(self, batch: Batch) -> Read:
        """What features are made of."""
        states = self.states(batch)
        batch = batch.to(states.device)  # a model over several devices answers on the last of them
        if self.settings.layer != -1:
            # Before the last normalisation some units reach 1e5, which half precision cannot hold.
            states = states * states.float().square().mean(-1, keepdim=True).add(1e-6).rsqrt().to(states.dtype)
        answer = states[torch.arange(len(states), device=states.device), batch.answer]
        return Read(answer.float(), _mean(states, batch.text), _mean(states, batch.image))

    def log_likelihoods(self, chats: Sequence[Chat], prompt: int = 0, read: Read | None = None) -> Tensor:
        """Mean log-likelihood per token of each class's answer after each chat, (B, C) float32, in the order of `classes`.

        Args:
            chats: of equal `shapes()`.
            prompt: that they were asked with.
            read: what was read from them already, which spares a pass where every answer is one token.
        """
        answers = self.answers[prompt]
        if all(len(ids) == 1 for ids in answers):
            last = read.answer if read is not None and self.settings.layer == -1 else self._last(chats)
            return self._scores(last.to(self.network.dtype)).float().log_softmax(-1)[:, [ids[0] for ids in answers]]
        return torch.stack([self._continued(chats, ids) for ids in answers], 1)

    def _last(self, chats: Sequence[Chat]) -> Tensor:
        """States (B, D) of the last layer at the answer position."""
        batch = self.collate(chats).to(self.device)
        hidden = self.network.model(**self.typed(batch.inputs), use_cache=False).last_hidden_state
        return hidden[torch.arange(len(hidden), device=hidden.device), batch.answer.to(hidden.device)]

    def recipe(self) -> str:
        """All that chats and scores depend on besides checkpoint and settings."""
        frames = [[list(frame) for frame in renderer.frames.values()] for renderer in self.renderers]
        return canonical_json({"frames": frames, "answers": self.answers, "control": self.renderers[0].control, "numbers": [BLANK, LIMIT, BUCKET, THIN]})

    def _continued(self, chats: Sequence[Chat], ids: Sequence[int]) -> Tensor:
        """Mean log-likelihood of one answer, fed behind every chat, (B,)."""
        batch = self.collate([chat.continued(ids[:-1]) for chat in chats], len(ids) - 1).to(self.device)
        hidden = self.network.model(**self.typed(batch.inputs), use_cache=False).last_hidden_state
        places = batch.answer.to(hidden.device)[:, None] + torch.arange(1 - len(ids), 1, device=hidden.device)  # (B, tokens of the answer)
        log_p = self._scores(hidden.gather(1, places[..., None].expand(-1, -1, hidden.shape[-1]))).float().log_softmax(-1)
        return log_p.gather(-1, torch.tensor(ids, device=log_p.device).expand(len(chats), -1)[..., None]).squeeze(-1).mean(-1)

    def _scores(self, states: Tensor) -> Tensor:
        """Next-token scores as the whole model gives them."""
        scores = self.network.lm_head(states)
        cap = getattr(self.network.config.get_text_config(), "final_logit_softcapping", None)
        return torch.tanh(scores / cap) * cap if cap else scores


def bucket(length: int) -> int:
    """Rounded up to a multiple of `BUCKET`."""
    return -(-length // BUCKET) * BUCKET


def _mean(states: Tensor, places: Tensor) -> Tensor:
    """Mean of (B, L, D) over the marked tokens: (B, D)."""
    weights = places.to(states.device, torch.float32)
    total = torch.einsum("bld,bl->bd", states.float(), weights)
    return total / weights.sum(1, keepdim=True).clamp(min=1)


def _device(name: str) -> torch.device:
    if name in ("auto", "spread"):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
