"""Replies that a multimodal LLM writes itself, and the class that each of them names.

A reply names the class y when, of all answers' words, those of y alone occur in it: as whole words, in any case, the longest answer first, so that the
"sarcastic" inside of "not sarcastic" is none of its own. Everything else is unparsed: silence, several classes, none.

Letters: B chats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

from causalroute.mllm.chat import Chat
from causalroute.mllm.model import Mllm

UNPARSED, UNASKED = -1, -2
"""What stands in place of a class."""


def parsed(reply: str, answers: Mapping[str, str]) -> str | None:
    """The class that a reply names; None where it is unparsed.

    Args:
        reply: as it was written.
        answers: class -> the words that stand for it.
    """
    named = {words.strip().casefold(): label for label, words in answers.items()}
    longest = "|".join(re.escape(words) for words in sorted(named, key=len, reverse=True))
    found = {named[words] for words in re.findall(rf"(?<!\w)(?:{longest})(?!\w)", reply.casefold())}
    return found.pop() if len(found) == 1 else None


class Speaker:
    """Lets a model write: greedily, at most `limit` tokens."""

    def __init__(self, model: Mllm, limit: int) -> None:
        from transformers import GenerationConfig

        self.model, own = model, model.network.generation_config
        ends = own.eos_token_id if own.eos_token_id is not None else model.processor.tokenizer.eos_token_id
        plan = GenerationConfig(max_new_tokens=limit, do_sample=False, num_beams=1, eos_token_id=ends, pad_token_id=model.pad)
        model.network.generation_config = plan  # else transformers fills what is open with the checkpoint's own penalties and temperatures

    def __call__(self, chats: Sequence[Chat]) -> list[str]:
        """The reply to each of B chats of equal `shapes()`; these are padded on the left, where every architecture of transformers expects it."""
        length = max(chat.length for chat in chats)
        inputs = {
            name: torch.cat([chat.padded(name, length - chat.length, 0, self.model.pad) for chat in chats]).to(self.model.device) for name in chats[0].inputs
        }
        made: torch.Tensor = self.model.network.generate(**self.model.typed(inputs))
        return list(self.model.processor.tokenizer.batch_decode(made[:, length:], skip_special_tokens=True))

    def classes(self, chats: Sequence[Chat]) -> torch.Tensor:
        """(B,) int8: number of the class that each reply to the first prompt names, in the order of `Mllm.classes`, or UNPARSED."""
        answers, names = self.model.settings.prompts[0].answers, self.model.classes
        found = [parsed(reply, answers) for reply in self(chats)]
        return torch.tensor([UNPARSED if name is None else names.index(name) for name in found], dtype=torch.int8)
