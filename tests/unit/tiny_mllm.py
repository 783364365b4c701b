"""Multimodal language models with random weights in HuggingFace format: tiny, but with the classes, files and chat templates of the real ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tests.unit.chat_templates import CHATML, GEMMA, GEMMA3, INTERN, LLAMA, LLAMA3, LLAVA, QWEN, QWEN_IMAGE, QWEN_VL, SMOL, SMOLVLM
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    MllamaConfig,
    MllamaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 3}


@dataclass(frozen=True)
class Recipe:
    """What a kind of checkpoint is made of."""

    model: Any
    config: Any
    processor: str
    special: dict[str, str]
    """Special tokens by the name that transformers gives them; those of other names are control strings only."""
    template: str
    bos: bool
    """Whether the tokenizer itself begins a text with its bos token."""
    more: dict[str, Any]
    """Settings of the processor."""
    pixels: dict[str, Any]
    """Settings of the image processor."""
    split: bool
    """Whether these lie in files of their own, as in checkpoints of transformers 4, rather than in processor_config.json."""


QWEN_PIXELS = {**HALF, "image_processor_type": "Qwen2VLImageProcessorFast", "patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
QWEN_PIXELS |= {"size": {"shortest_edge": 256, "longest_edge": 768}, "do_resize": True, "do_convert_rgb": True}
SMOL_PIXELS = {**HALF, "size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}, "do_image_splitting": False, "do_pad": True, "do_resize": True}
NAMED = {"bos_token", "eos_token", "pad_token", "unk_token"}


def tower(**more: Any) -> dict[str, Any]:
    return {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, **more}


def language(ids: dict[str, int], **more: Any) -> dict[str, Any]:
    """Settings of a text tower of 300 tokens or a few less, with ids that are its tokenizer's."""
    size = -(-(256 + len(ids)) // 4) * 4
    tokens = {name: ids[name.replace("_id", "")] for name in ("eos_token_id", "pad_token_id")} | {"bos_token_id": ids.get("bos_token")}
    return tower(**{"vocab_size": size, "num_key_value_heads": 1, "max_position_embeddings": 512, **tokens, **more})


def qwen2_5_vl(ids: dict[str, int]) -> dict[str, Any]:
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32, "window_size": 16}
    text = language(ids, rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]})
    return {"text_config": text, "vision_config": {**vision, "fullatt_block_indexes": [1]}, **qwen_ids(ids)}


def qwen3_vl(ids: dict[str, int]) -> dict[str, Any]:
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4, "out_hidden_size": 32, "num_position_embeddings": 16}
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    text = language(ids, head_dim=16, rope_parameters=rope)
    return {"text_config": text, "vision_config": {**vision, "deepstack_visual_indexes": [0]}, **qwen_ids(ids)}


def qwen_ids(ids: dict[str, int]) -> dict[str, int]:
    return {"image_token_id": ids["image"], "video_token_id": ids["video"], "vision_start_token_id": ids["start"], "vision_end_token_id": ids["end"]}


def llava(ids: dict[str, int]) -> dict[str, Any]:
    vision = tower(model_type="clip_vision_model", image_size=28, patch_size=7, projection_dim=32)
    return {"text_config": language(ids, model_type="llama"), "vision_config": vision, "image_token_index": ids["image"], "image_seq_length": 16}


def llava_onevision(ids: dict[str, int]) -> dict[str, Any]:
    vision = tower(model_type="siglip_vision_model", image_size=16, patch_size=8, vision_use_head=False)
    more = {"image_token_index": ids["image"], "video_token_index": ids["video"], "image_grid_pinpoints": GRID}
    return {"text_config": language(ids, model_type="qwen2"), "vision_config": vision, **more}


def smolvlm(ids: dict[str, int]) -> dict[str, Any]:
    vision = tower(image_size=32, patch_size=8)
    return {"text_config": language(ids, model_type="llama"), "vision_config": vision, "image_token_id": ids["image"], "scale_factor": 2}


def gemma3(ids: dict[str, int]) -> dict[str, Any]:
    text = language(ids, head_dim=16, query_pre_attn_scalar=16, sliding_window=16, layer_types=["sliding_attention", "full_attention"])
    vision = tower(model_type="siglip_vision_model", image_size=32, patch_size=8, vision_use_head=False)
    images = {"boi_token_index": ids["boi_token"], "eoi_token_index": ids["eoi_token"], "image_token_index": ids["image_token"]}
    return {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 4, **images}


def internvl(ids: dict[str, int]) -> dict[str, Any]:
    vision = tower(image_size=[32, 32], patch_size=[8, 8])
    more = {"image_token_id": ids["context_image_token"], "image_seq_length": 4}
    return {"text_config": language(ids, model_type="qwen2"), "vision_config": vision, **more}


def mllama(ids: dict[str, int]) -> dict[str, Any]:
    """The image token is beyond the vocabulary of what the model can say, as in the published checkpoints."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_global_layers": 1,
        "attention_heads": 2,
        "image_size": 64,
        "patch_size": 32,
    }
    vision |= {"vision_output_dim": 64, "intermediate_layers_indices": [0], "max_num_tiles": 4}
    text = language(ids, num_hidden_layers=3, cross_attention_layers=[1], rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    return {"text_config": text | {"vocab_size": ids["image"]}, "vision_config": vision, "image_token_index": ids["image"]}


def square(kind: str, side: int, **more: Any) -> dict[str, Any]:
    return {**HALF, "image_processor_type": kind, "size": {"height": side, "width": side}, "do_resize": True, "do_convert_rgb": True, **more}


GRID = [[16, 16], [16, 32], [32, 16]]
RECIPES = {
    "qwen2_5_vl": Recipe(
        Qwen2_5_VLForConditionalGeneration,
        lambda ids: Qwen2_5_VLConfig(**qwen2_5_vl(ids)),
        "Qwen2_5_VLProcessor",
        QWEN_VL,
        CHATML.replace("IMAGE", QWEN_IMAGE),
        False,
        {},
        QWEN_PIXELS,
        True,
    ),
    "qwen3_vl": Recipe(
        Qwen3VLForConditionalGeneration,
        lambda ids: Qwen3VLConfig(**qwen3_vl(ids)),
        "Qwen3VLProcessor",
        QWEN_VL,
        CHATML.replace("IMAGE", QWEN_IMAGE),
        False,
        {},
        QWEN_PIXELS,
        False,
    ),
    "llava": Recipe(
        LlavaForConditionalGeneration,
        lambda ids: LlavaConfig(**llava(ids)),
        "LlavaProcessor",
        {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "image": "<image>"},
        LLAVA,
        True,
        {"patch_size": 7, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1, "image_token": "<image>"},
        {**square("CLIPImageProcessor", 28), "size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}, "do_center_crop": True},
        True,
    ),
    "llava_onevision": Recipe(
        LlavaOnevisionForConditionalGeneration,
        lambda ids: LlavaOnevisionConfig(**llava_onevision(ids)),
        "LlavaOnevisionProcessor",
        {**QWEN, "image": "<image>", "video": "<video>"},
        CHATML.replace("IMAGE", "<image>\n"),
        False,
        {"num_image_tokens": 4, "vision_feature_select_strategy": "full", "image_token": "<image>", "video_token": "<video>"},
        square("LlavaOnevisionImageProcessor", 16, image_grid_pinpoints=GRID, do_pad=True),
        True,
    ),
    "smolvlm": Recipe(
        SmolVLMForConditionalGeneration,
        lambda ids: SmolVLMConfig(**smolvlm(ids)),
        "SmolVLMProcessor",
        {**SMOL, "video": "<video>"},
        SMOLVLM,
        False,
        {"image_seq_len": 4},
        {**SMOL_PIXELS, "image_processor_type": "SmolVLMImageProcessor"},
        True,
    ),
    "idefics3": Recipe(
        Idefics3ForConditionalGeneration,
        lambda ids: Idefics3Config(**smolvlm(ids)),
        "Idefics3Processor",
        SMOL,
        SMOLVLM,
        False,
        {"image_seq_len": 4},
        {**SMOL_PIXELS, "image_processor_type": "Idefics3ImageProcessor"},
        True,
    ),
    "gemma3": Recipe(
        Gemma3ForConditionalGeneration,
        lambda ids: Gemma3Config(**gemma3(ids)),
        "Gemma3Processor",
        GEMMA,
        GEMMA3,
        True,
        {"image_seq_length": 4},
        square("Gemma3ImageProcessor", 32),
        True,
    ),
    "internvl": Recipe(
        InternVLForConditionalGeneration,
        lambda ids: InternVLConfig(**internvl(ids)),
        "InternVLProcessor",
        INTERN,
        CHATML.replace("IMAGE", "<IMG_CONTEXT>\n"),
        False,
        {"image_seq_length": 4},
        square("GotOcr2ImageProcessor", 32, crop_to_patches=False, min_patches=1, max_patches=1),
        False,
    ),
    "mllama": Recipe(
        MllamaForConditionalGeneration,
        lambda ids: MllamaConfig(**mllama(ids)),
        "MllamaProcessor",
        LLAMA,
        LLAMA3,
        True,
        {},
        square("MllamaImageProcessor", 64, max_image_tiles=4, do_pad=True),
        True,
    ),
}
KINDS = tuple(RECIPES)


def make_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """One token a byte, so that any text can be told, and one for each control string."""
    core = Tokenizer(models.BPE({letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(recipe.special.values()))
    bos = recipe.special.get("bos_token")
    if recipe.bos and bos is not None:
        core.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, core.token_to_id(bos))])
    named = {name: token for name, token in recipe.special.items() if name in NAMED}
    extra = {name: token for name, token in recipe.special.items() if name.endswith("_token") and name not in NAMED}
    return PreTrainedTokenizerFast(tokenizer_object=core, **named, extra_special_tokens=extra, model_max_length=512)


def save_processor(folder: Path, recipe: Recipe) -> None:
    if recipe.split:
        (folder / "preprocessor_config.json").write_text(json.dumps({**recipe.pixels, "processor_class": recipe.processor}))
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": recipe.template}))
    else:
        (folder / "chat_template.jinja").write_text(recipe.template)
    if recipe.more or not recipe.split:
        nested = {} if recipe.split else {"image_processor": recipe.pixels, "video_processor": {"video_processor_type": "Qwen3VLVideoProcessor"}}
        (folder / "processor_config.json").write_text(json.dumps({"processor_class": recipe.processor, **recipe.more, **nested}))


@torch.no_grad()
def draw(model: Any) -> Any:
    """Gives every matrix gain 1 and opens gates, so that texts and images matter to the states: some are born as zeros, and the others very small."""
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.normal_(std=weight[0].numel() ** -0.5)
        elif weight.numel() == 1 and "gate" in name:
            weight.fill_(1)
    return model


def save_mllm(folder: Path, kind: str, *, seed: int = 0) -> Path:
    """A complete checkpoint of `kind` (one of KINDS) in `folder`."""
    return save(folder, RECIPES[kind], seed=seed)


def save(folder: Path, recipe: Recipe, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A complete checkpoint by a recipe in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(recipe)
    tokenizer.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = recipe.config({name: tokenizer.convert_tokens_to_ids(token) for name, token in recipe.special.items()})
        draw(recipe.model(config)).to(dtype).save_pretrained(folder)
    save_processor(folder, recipe)
    return folder
