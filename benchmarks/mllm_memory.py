"""Memory that a published multimodal LLM needs, without its weights and without a GPU: parameters counted on the meta device, what a pass holds besides
them traced on random weights.

    PYTHONPATH=src python -m benchmarks.mllm_memory                       every model of the table (docs/mllm.md)
    PYTHONPATH=src python -m benchmarks.mllm_memory smolvlm_256m          some of them

Traced is a bfloat16 pass over chats of a post's text and image, features and answers: the largest sum of tensors alive at once, weights apart, for one chat
and for two. The model has its published widths, its whole vision tower, and the first layers alone of its language model: without gradients and caches, what
a pass holds at once does not grow with their number. What kernels of a GPU need inside themselves is not in it, nor what its allocator loses. Tokens of the
text are those of a tokenizer that knows bytes alone, more than a published one makes; tokens of the image are the published ones.

Letters: L tokens of a chat.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tests.unit import tiny_mllm
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from causalroute.config import Backbone, Prompt
from causalroute.config import Mllm as Settings
from causalroute.features.chats import Ask, ChatBackbone
from causalroute.mllm.adapters import OF_IMAGES

PROMPT = Prompt(question="Is this post sarcastic? Answer yes or no.", answers={"literal": "n", "sarcastic": "y"})
TEXT = "oh great, another monday morning in the rain and the bus is late again #blessed"
SIDE = 448
"""Longest side of the image, the default of `image_side`."""
KEPT = 2
"""Layers of a language model that are traced, at least."""
ADAPTED = {"experts": 4, "rank": 8}
"""Of `lora_moe`, as by default."""
GB = 1e9
Config = dict[str, Any]


@dataclass(frozen=True)
class Published:
    """A checkpoint: what is known of it from its configuration."""

    hub: str
    """its id"""
    kind: str
    """of `tiny_mllm.RECIPES`, whose classes and chat template it shares"""
    text: Config
    """of the language model, as far as it is not the tokenizer's"""
    vision: Config
    more: Config = dataclasses.field(default_factory=dict)
    """of the whole model"""
    pixels: Config = dataclasses.field(default_factory=dict)
    """of the image preprocessing"""
    processor: Config = dataclasses.field(default_factory=dict)


def qwen_text(hidden: int, inner: int, layers: int, heads: int, groups: int, **more: Any) -> Config:
    """Settings of a language model, Qwen's vocabulary unless another is given."""
    found = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": groups}
    return {**found, "vocab_size": 151936, "max_position_embeddings": 32768, **more}


def tower(hidden: int, inner: int, layers: int, heads: int, side: Any, patch: Any, **more: Any) -> Config:
    """Settings of a vision tower."""
    found = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**found, "image_size": side, "patch_size": patch, **more}


def qwen2_5(out: int) -> Config:
    """Of Qwen2.5-VL's, which is the same for all sizes but what it hands on."""
    found = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "out_hidden_size": out, "window_size": 112}
    return {**found, "fullatt_block_indexes": [7, 15, 23, 31]}


def qwen3(hidden: int, inner: int, depth: int, out: int, deep: list[int]) -> Config:
    """Of Qwen3-VL's."""
    found = {"depth": depth, "hidden_size": hidden, "intermediate_size": inner, "num_heads": 16, "patch_size": 16, "out_hidden_size": out}
    return {**found, "deepstack_visual_indexes": deep, "num_position_embeddings": 2304}


MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
MROPE3 = {"head_dim": 128, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True}}
SO400M = {"hidden_size": 1152, "intermediate_size": 4304, "num_attention_heads": 16, "patch_size": 14}
QWEN_PIXELS = {"patch_size": 14, "size": {"shortest_edge": 3136, "longest_edge": 12845056}}
QWEN3_PIXELS = {"patch_size": 16, "size": {"shortest_edge": 65536, "longest_edge": 16777216}}
TIED = {"tie_word_embeddings": True}
MODELS = {
    "smolvlm_256m": Published(
        "HuggingFaceTB/SmolVLM-256M-Instruct", "smolvlm",
        qwen_text(576, 1536, 30, 9, 3, vocab_size=49280, max_position_embeddings=8192), tower(768, 3072, 12, 12, 512, 16),
        {"scale_factor": 4}, {"size": {"longest_edge": 512}, "max_image_size": {"longest_edge": 512}}, {"image_seq_len": 64},
    ),
    "smolvlm_2b": Published(
        "HuggingFaceTB/SmolVLM-Instruct", "idefics3",
        qwen_text(2048, 8192, 24, 32, 32, vocab_size=49155, max_position_embeddings=16384), tower(1152, 4304, 27, 16, 384, 14),
        {"scale_factor": 3}, {"size": {"longest_edge": 384}, "max_image_size": {"longest_edge": 384}}, {"image_seq_len": 81},
    ),
    "qwen2_5_vl_3b": Published(
        "Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl", qwen_text(2048, 11008, 36, 16, 2, **MROPE), qwen2_5(2048), TIED, QWEN_PIXELS,
    ),
    "qwen2_5_vl_7b": Published(
        "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", qwen_text(3584, 18944, 28, 28, 4, vocab_size=152064, **MROPE), qwen2_5(3584), {}, QWEN_PIXELS,
    ),
    "qwen3_vl_4b": Published(
        "Qwen/Qwen3-VL-4B-Instruct", "qwen3_vl", qwen_text(2560, 9728, 36, 32, 8, **MROPE3), qwen3(1024, 4096, 24, 2560, [5, 11, 17]), TIED, QWEN3_PIXELS,
    ),
    "qwen3_vl_8b": Published(
        "Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl", qwen_text(4096, 12288, 36, 32, 8, **MROPE3), qwen3(1152, 4304, 27, 4096, [8, 16, 24]), {}, QWEN3_PIXELS,
    ),
    "llava_7b": Published(
        "llava-hf/llava-1.5-7b-hf", "llava",
        qwen_text(4096, 11008, 32, 32, 32, vocab_size=32064, max_position_embeddings=4096), tower(1024, 4096, 24, 16, 336, 14, projection_dim=768),
        {"image_seq_length": 576}, {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}, {"patch_size": 14},
    ),
    "llava_onevision_7b": Published(
        "llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision",
        qwen_text(3584, 18944, 28, 28, 4, vocab_size=152000), SO400M | {"image_size": 384, "num_hidden_layers": 26, "vision_use_head": False},
        {"image_grid_pinpoints": [[384 * row, 384 * column] for row in range(1, 7) for column in range(1, 7)]},
        {"size": {"height": 384, "width": 384}, "image_grid_pinpoints": [[384 * row, 384 * column] for row in range(1, 7) for column in range(1, 7)]},
        {"num_image_tokens": 729},
    ),
    "internvl3_8b": Published(
        "OpenGVLab/InternVL3-8B-hf", "internvl",
        qwen_text(3584, 18944, 28, 28, 4, vocab_size=151674), tower(1024, 4096, 24, 16, [448, 448], [14, 14]),
        {"image_seq_length": 256}, {"size": {"height": 448, "width": 448}}, {"image_seq_length": 256},
    ),
    "gemma3_4b": Published(
        "google/gemma-3-4b-it", "gemma3",
        qwen_text(2560, 10240, 34, 8, 4, vocab_size=262208, head_dim=256, query_pre_attn_scalar=256, sliding_window=1024, layer_types=None),
        SO400M | {"image_size": 896, "num_hidden_layers": 27, "vision_use_head": False},
        {"mm_tokens_per_image": 256, **TIED}, {"size": {"height": 896, "width": 896}}, {"image_seq_length": 256},
    ),
    "llama3_2_11b": Published(
        "meta-llama/Llama-3.2-11B-Vision-Instruct", "mllama",
        qwen_text(4096, 14336, 40, 32, 8, vocab_size=128256, cross_attention_layers=[3, 8, 13, 18, 23, 28, 33, 38]),
        {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_global_layers": 8, "attention_heads": 16, "image_size": 560,
         "patch_size": 14, "vision_output_dim": 7680, "intermediate_layers_indices": [3, 7, 15, 23, 30]},
        {}, {"size": {"height": 560, "width": 560}},
    ),
}  # fmt: skip
"""By the key that `backbones` of params.yaml might have."""


def settings_of(one: Published, ids: dict[str, int], layers: int = 0) -> Config:
    """Of the whole model; with `layers`, a language model of that many, one with cross-attention among them where it has any."""
    tiny = RAW[one.kind](ids)
    text = {**tiny["text_config"], **one.text}
    if layers:
        text["num_hidden_layers"] = layers
    if "cross_attention_layers" in text and layers:
        text["cross_attention_layers"] = [layers - 1]
    if text.get("layer_types", ...) is None:
        text["layer_types"] = ["full_attention" if layer % 6 == 5 or layer == layers - 1 else "sliding_attention" for layer in range(text["num_hidden_layers"])]
    tied = one.more.get("tie_word_embeddings", False)
    return {
        **tiny,
        **one.more,
        "text_config": {**text, "tie_word_embeddings": tied},
        "vision_config": {**tiny["vision_config"], **one.vision},
        "tie_word_embeddings": tied,
    }


RAW: dict[str, Callable[[dict[str, int]], Config]] = {
    "qwen2_5_vl": tiny_mllm.qwen2_5_vl, "qwen3_vl": tiny_mllm.qwen3_vl, "llava": tiny_mllm.llava, "llava_onevision": tiny_mllm.llava_onevision,
    "smolvlm": tiny_mllm.smolvlm, "idefics3": tiny_mllm.smolvlm, "gemma3": tiny_mllm.gemma3, "internvl": tiny_mllm.internvl, "mllama": tiny_mllm.mllama,
}  # fmt: skip


class Living(TorchDispatchMode):
    """Bytes of tensors that were made inside and are still alive, and the most there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and counts what is new."""
        old = {leaf.untyped_storage()._cdata for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in old:
                self._count(leaf.untyped_storage())
        return made

    def _count(self, storage: Any) -> None:
        if storage in self.known:
            return
        self.known.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, size)

    def _gone(self, size: int) -> None:
        self.now -= size


def whole(one: Published) -> nn.Module:
    """The model on the meta device: shapes alone."""
    recipe = tiny_mllm.RECIPES[one.kind]
    tokenizer = tiny_mllm.make_tokenizer(recipe)
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in recipe.special.items()}
    with torch.device("meta"):
        model: nn.Module = recipe.model(type(recipe.config(ids))(**settings_of(one, ids)))
    model.tie_weights()  # type: ignore[operator]
    return model


def adapter_weights(model: Any) -> int:
    """Of `lora_moe` in every linear map of the language model's layers."""
    linear = [module for name, module in model.get_decoder().layers.named_modules() if isinstance(module, nn.Linear) and not name.endswith(OF_IMAGES)]
    return ADAPTED["experts"] * ADAPTED["rank"] * sum(module.in_features + module.out_features for module in linear)


@contextlib.contextmanager
def cut(one: Published) -> Iterator[ChatBackbone]:
    """A backbone of published widths with few layers in its language model, random weights, bfloat16, on the CPU."""
    tiny = tiny_mllm.RECIPES[one.kind]
    recipe = dataclasses.replace(
        tiny,
        config=lambda ids: type(tiny.config(ids))(**settings_of(one, ids, KEPT)),
        pixels=tiny.pixels | one.pixels,
        more=tiny.more | one.processor,
    )
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_mllm.save(Path(folder) / "model", recipe, dtype=torch.bfloat16)
        settings = Settings(prompts=(PROMPT,), image_side=SIDE, dtype="bfloat16", device="cpu")
        yield ChatBackbone(Backbone(kind="mllm", model=str(model), batch_size=2, mllm=settings), "traced")


def held(backbone: ChatBackbone, chats: int) -> int:
    """Most bytes of tensors at once in a pass."""
    image = Image.new("RGB", (SIDE, SIDE * 3 // 4), (90, 120, 60))
    batch = [backbone.model.chat(TEXT, image) for _ in range(chats)]
    with Living() as living:
        backbone.forward(batch, Ask(0, feature=True, score=True))
    return living.most


def measure(name: str) -> Config:
    """One row."""
    one = MODELS[name]
    model = whole(one)
    parameters = sum(weight.numel() for weight in model.parameters())
    row = {"model": name, "hub": one.hub, "parameters": parameters, "adapter_weights": adapter_weights(model)}
    with cut(one) as backbone:
        chat = backbone.model.chat(TEXT, Image.new("RGB", (SIDE, SIDE * 3 // 4)))
        row |= {"tokens": chat.length, "image_tokens": int(chat.image.sum()), "one_chat": held(backbone, 1), "two_chats": held(backbone, 2)}
    return row


def main() -> None:
    """Prints the table of docs/mllm.md and writes mllm_memory.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(MODELS)}; none: all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/mllm"), help="folder of the results")
    args = parser.parse_args()
    if unknown := set(args.models) - set(MODELS):
        parser.error(f"unknown models: {', '.join(sorted(unknown))}")
    rows = []
    print("| checkpoint | 1e9 parameters | weights, bfloat16 | image tokens | a chat | 16 chats | `lora_moe` |\n|---|---|---|---|---|---|---|")
    for name in args.models or MODELS:
        row = measure(name)
        rows.append(row)
        each = row["two_chats"] - row["one_chat"]
        parts = (f"`{row['hub']}`", f"{row['parameters'] / 1e9:.2f}", f"{2 * row['parameters'] / GB:.1f} GB", row["image_tokens"], f"{each / 1e6:.0f} MB")
        total = (f"{(2 * row['parameters'] + row['one_chat'] + 15 * each) / GB:.1f} GB", f"+ {20 * row['adapter_weights'] / GB:.1f} GB")
        print(f"| {' | '.join(map(str, parts + total))} |", flush=True)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "mllm_memory.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
