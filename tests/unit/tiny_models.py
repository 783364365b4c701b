"""Checkpoints with random weights in HuggingFace format, made in a moment: tiny, but read by the very code that real ones are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    MobileNetV2Config,
    MobileNetV2Model,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTModel,
)

WORDS = ["a", "the", "sun", "rain", "shines", "falls", "on", "my", "happy", "sad", "parade", "again", "so", "much", "fun", "monday", "morning", "coffee"]


def save_tokenizer(folder: Path, length: int, *, mask: bool = True) -> None:
    """A lower-casing word tokenizer that begins and ends a text with its own token."""
    special = ["[PAD]", "[UNK]", "[BOS]", "[MASK]", "[EOS]"]
    vocabulary = {word: number for number, word in enumerate([*special, *WORDS, "_"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=[("[BOS]", 2), ("[EOS]", 4)])
    names = {"pad_token": "[PAD]" if mask else "[EOS]", "unk_token": "[UNK]" if mask else "[EOS]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    if mask:
        names["mask_token"] = "[MASK]"
    PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=length, **names).save_pretrained(folder)


def save_preprocessor(folder: Path, kind: str, side: int) -> None:
    size = {"height": side, "width": side}
    settings = {"image_processor_type": kind, "do_resize": True, "size": size, "crop_size": size, "do_center_crop": True, "do_normalize": True}
    settings |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))


def tower(**more: int) -> dict[str, int]:
    return {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, **more}


def save_clip(folder: Path, *, mask: bool = True) -> Path:
    torch.manual_seed(0)
    text = tower(vocab_size=40, max_position_embeddings=20, eos_token_id=4, bos_token_id=2, pad_token_id=0)
    config = CLIPConfig(text_config=text, vision_config=tower(image_size=32, patch_size=8), projection_dim=12)
    CLIPModel(config).save_pretrained(folder)
    save_tokenizer(folder, 20, mask=mask)
    save_preprocessor(folder, "CLIPImageProcessor", 32)
    return folder


def save_siglip(folder: Path) -> Path:
    torch.manual_seed(1)
    text = tower(vocab_size=40, max_position_embeddings=12, pad_token_id=0, bos_token_id=2, eos_token_id=4)
    SiglipModel(SiglipConfig(text_config=text, vision_config=tower(image_size=32, patch_size=8))).save_pretrained(folder)
    save_tokenizer(folder, 12)
    save_preprocessor(folder, "SiglipImageProcessor", 32)
    return folder


def save_bert(folder: Path) -> Path:
    torch.manual_seed(2)
    BertModel(BertConfig(vocab_size=40, max_position_embeddings=24, pad_token_id=0, **tower())).save_pretrained(folder)
    save_tokenizer(folder, 10**12)
    return folder


def save_mobilenet(folder: Path) -> Path:
    torch.manual_seed(3)
    MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.1, image_size=32, min_depth=4, depth_divisible_by=4)).save_pretrained(folder)
    save_preprocessor(folder, "MobileNetV2ImageProcessor", 32)
    return folder


def save_vit(folder: Path, *, pooler: bool) -> Path:
    torch.manual_seed(4)
    ViTModel(ViTConfig(image_size=32, patch_size=8, **tower()), add_pooling_layer=pooler).save_pretrained(folder)
    save_preprocessor(folder, "ViTImageProcessor", 32)
    return folder


def pictures(folder: Path, count: int) -> list[str]:
    """Noise images of several sizes; their file names."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(count)
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        pixels = torch.randint(0, 256, (40 + number % 3, 50, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / name)
    return names


def sentences(count: int) -> list[str]:
    """Different texts of one to twelve words."""
    return [" ".join(_words(number, 1 + number % 12)) for number in range(count)]


def _words(number: int, length: int) -> Sequence[str]:
    return [WORDS[(number * 7 + place * (1 + number // 12)) % len(WORDS)] for place in range(length)]
