"""Passes of a multimodal LLM over inputs that the store does not hold yet.

Chats are prepared one by one and gathered by the shapes of their tensors. On a CPU a pass has one chat, which costs nothing there, so that a row depends on
itself alone to the last bit; on a GPU a pass has up to `batch_size` of them, and its company may change the last bit.

Letters: D width of the model, V prompts, C classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from causalroute.features.chats import Ask, ChatBackbone, Group, finite
from causalroute.features.encoding import Encoding
from causalroute.features.inputs import Input, sides
from causalroute.features.progress import Progress
from causalroute.features.threads import one_thread, ordered_map
from causalroute.mllm.chat import Chat
from causalroute.mllm.model import bucket
from causalroute.mllm.replies import UNASKED

SHARD = 64
"""Inputs per shard: what a killed run loses at most."""
WAITING = 16
"""Batches' worth of prepared images held in memory until a batch of chats of their shape is full."""
Results = Mapping[Ask, dict[str, Tensor]]


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
    job.store.add(list(ready), finite({name: torch.stack([row[name] for row in rows]) for name in rows[0]}))


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
