"""Replies of a local language model, greedy, each kept by content.

A reply depends on its chat alone: a batch has a fixed number of rows (filled with copies), prompts are padded on the left to a length of their own, and
nothing is drawn. Weights are read as safetensors, no code of a checkpoint is run, and a hub id needs its commit (`features.folders.find_folder`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from causalroute.config import Llm
from causalroute.counterfactual.text.reply import Chat
from causalroute.errors import UserError
from causalroute.io import canonical_json, read_json, sha256_bytes, write_json

if TYPE_CHECKING:
    import torch

MORE = ("chat_template*", "generation_config.json")
"""Files of a language model that an encoder has no use for."""
WHERE = "editors: llm.model"
STEP = 64
"""Prompts are padded to a multiple of this many tokens."""
LONGEST = 4096
"""Tokens of prompt and reply together, where the model itself would take more: what a forward pass needs grows with them."""
CHUNK = 32
"""Chats between two writes of the cache: what a killed run loses at most."""


class Generator(Protocol):
    """A language model that answers chats."""

    key: str
    """digest of all that a reply depends on besides the chat"""
    control: frozenset[str]
    """strings that the tokenizer reads as control tokens: a post that holds one could speak in another role"""

    def __call__(self, chats: Sequence[Chat]) -> list[str | None]:
        """The reply to each chat; None where it is too long for the model."""
        ...


class Local:
    """A causal language model from a local folder (see `Generator`).

    Raises:
        UserError: the model cannot be found or loaded, or its tokenizer has no chat template.
    """

    def __init__(self, settings: Llm) -> None:
        import transformers
        from transformers import AutoModelForCausalLM, GenerationConfig

        from causalroute.features.folders import find_folder, fingerprint, library_versions
        from causalroute.features.loading import load_tokenizer, quiet

        quiet()
        folder = find_folder(settings.model, settings.revision, more=MORE, where=WHERE)
        self.tokenizer = load_tokenizer(folder)
        if not self.tokenizer.chat_template:
            raise UserError("the tokenizer of the language model has no chat template", where=str(folder), fix="name an instruction-tuned model")
        try:
            self.model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, local_files_only=True).float().eval()
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            fix = "name a folder in HuggingFace format that transformers' AutoModelForCausalLM can read"
            raise UserError(f"cannot load the language model: {str(error).splitlines()[0]}", where=str(folder), fix=fix) from error
        ends = self.model.generation_config.eos_token_id if self.model.generation_config.eos_token_id is not None else self.tokenizer.eos_token_id
        pad = self.tokenizer.pad_token_id
        self.pad = pad if pad is not None else (ends[0] if isinstance(ends, list) else ends or 0)
        plan = GenerationConfig(max_new_tokens=settings.max_new_tokens, do_sample=False, num_beams=1, eos_token_id=ends, pad_token_id=self.pad)
        self.model.generation_config = plan  # else transformers fills what is open with the checkpoint's own penalties and temperatures
        self.rows, self.longest = settings.batch_size, _longest(self.model.config) - settings.max_new_tokens
        self.control = frozenset(token for token in [*self.tokenizer.all_special_tokens, *_added(self.tokenizer)] if token.strip())
        more = (str(self.tokenizer.chat_template), f"batch {self.rows}", f"reply {settings.max_new_tokens}", transformers.__version__)
        self.key = fingerprint([folder], *more, *library_versions())

    def __call__(self, chats: Sequence[Chat]) -> list[str | None]:
        """The reply to each chat; None where it is too long for the model."""
        ids = [self._prompt(chat) for chat in chats]
        found: list[str | None] = [None] * len(chats)
        for rows in self._batches(ids):
            for row, reply in zip(rows, self._reply([ids[row] for row in rows]), strict=True):
                found[row] = reply
        return found

    def _prompt(self, chat: Chat) -> list[int]:
        messages = [{"role": role, "content": content} for role, content in chat]
        text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _batches(self, ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Rows that fit the model, in batches of one padded length."""
        buckets: dict[int, list[int]] = {}
        for row in range(len(ids)):
            if len(ids[row]) <= self.longest:
                buckets.setdefault(min(-(-len(ids[row]) // STEP) * STEP, self.longest), []).append(row)
        for _, rows in sorted(buckets.items()):
            for first in range(0, len(rows), self.rows):
                yield rows[first : first + self.rows]

    def _reply(self, prompts: Sequence[Sequence[int]]) -> list[str]:
        """Greedy replies to prompts of one padded length."""
        import torch

        width = min(-(-len(prompts[0]) // STEP) * STEP, self.longest)
        full = [*prompts, *[prompts[0]] * (self.rows - len(prompts))]
        ids = torch.tensor([[self.pad] * (width - len(row)) + list(row) for row in full])  # (B, T)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in full])
        made: torch.Tensor = self.model.generate(input_ids=ids, attention_mask=mask)
        return list(self.tokenizer.batch_decode(made[: len(prompts), width:], skip_special_tokens=True))


def _longest(config: Any) -> int:
    """Tokens that a forward pass takes."""
    return min(LONGEST, getattr(config.get_text_config(), "max_position_embeddings", LONGEST))


def _added(tokenizer: Any) -> list[str]:
    """Further strings that are matched before the text is cut."""
    return [str(token) for token in tokenizer.get_added_vocab()]


def replies(chats: Sequence[Chat], generate: Generator, cache: Path | None) -> list[str | None]:
    """The reply to each chat, from the cache where it is there; equal chats are asked once. None: too long for the model, which is not kept."""
    keys = [sha256_bytes(generate.key.encode(), canonical_json(chat).encode()) for chat in chats]
    known = {key: reply for key in dict.fromkeys(keys) if cache is not None and (reply := _kept(cache, key)) is not None}
    todo = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in known}
    order = sorted(todo, key=lambda key: len(todo[key][-1][1]))
    found: dict[str, str | None] = dict(known)
    for first in range(0, len(order), CHUNK):
        chunk = order[first : first + CHUNK]
        for key, reply in zip(chunk, generate([todo[key] for key in chunk]), strict=True):
            found[key] = reply
            if cache is not None and reply is not None:
                write_json(_file(cache, key), {"reply": reply})
    return [found[key] for key in keys]


def _file(cache: Path, key: str) -> Path:
    return cache / key[:2] / f"{key}.json"


def _kept(cache: Path, key: str) -> str | None:
    """A kept reply; None where there is none, or where the file is damaged (told: it is made again)."""
    path = _file(cache, key)
    if not path.is_file():
        return None
    try:
        reply = read_json(path)["reply"]
    except (OSError, ValueError, KeyError, TypeError):
        reply = None
    if not isinstance(reply, str):
        print(f"reply cache: {path} is damaged; the model is asked again", file=sys.stderr)
        return None
    return reply
