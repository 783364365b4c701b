"""Loads a multimodal language model and its processor through transformers' Auto classes, on PIL images and without videos.

A processor of AutoProcessor's wants a video processor where the model knows videos, and that wants torchvision. Posts have none, so the class of
processor that the checkpoint names is put together from its tokenizer, its image processor in PIL, and nothing in the video processor's place.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, cast

import torch

from causalroute.config import Mllm
from causalroute.errors import UserError
from causalroute.features.loading import _told, load_tokenizer, quiet

A_FIXED_DAY = "{%- macro a_fixed_day(form) -%}1 January 2025{%- endmacro -%}"
"""What templates that tell the model today's date take for it: features must not depend on the day."""
CHOOSE = "choose an image-and-text chat model, like Qwen2.5-VL, LLaVA, SmolVLM, Gemma 3 or InternVL, as published for transformers (*-hf)"


def load(folder: Path, settings: Mllm, *, where: str) -> tuple[Any, Any]:
    """The frozen model of `folder`, and the processor that turns its chats and images into tokens and pixels.

    Args:
        folder: a checkpoint in HuggingFace format.
        settings: type of the weights, bits they are held in, and device.
        where: the setting or file that named the folder, for messages.

    Raises:
        UserError: unknown architecture, no images or no text among its inputs, weights missing, no chat template, no image preprocessing.
    """
    quiet()
    place = f"{where}: {folder}"
    config = _config(folder, place)
    processor = load_processor(folder, config, place)
    return _model(folder, _options(settings, place), place), processor


def _options(settings: Mllm, place: str) -> dict[str, Any]:
    """How weights are laid out, as from_pretrained wants it said."""
    options: dict[str, Any] = {"dtype": getattr(torch, settings.dtype)}
    if settings.device == "spread":
        options["device_map"] = "auto"
    if settings.quantize == "none":
        return options
    if not torch.cuda.is_available() or importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"quantize: {settings.quantize} needs a CUDA device and bitsandbytes",
            where=place,
            fix="pip install bitsandbytes on a GPU machine, or quantize: none",
        )
    from transformers import BitsAndBytesConfig

    bits = {"load_in_4bit": settings.quantize == "4bit", "load_in_8bit": settings.quantize == "8bit", "bnb_4bit_compute_dtype": options["dtype"]}
    where = {"device_map": {"": 0 if settings.device == "auto" else settings.device}}
    return {**where, **options, "quantization_config": BitsAndBytesConfig(**bits)}


def _config(folder: Path, place: str) -> Any:
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    with _told(folder, "multimodal language model"):
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise UserError(f"a model of type {config.model_type!r} does not read images and text in one chat", where=place, fix=CHOOSE)
    return config


def _model(folder: Path, options: dict[str, Any], place: str) -> Any:
    from transformers import AutoModelForImageTextToText

    with _told(folder, "multimodal language model"):
        fixed: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
        model, info = cast(Any, AutoModelForImageTextToText.from_pretrained(folder, **options, **fixed))
    lacking = sorted(info["missing_keys"])  # without those that are tied to others: transformers does not count them
    if lacking:
        what = f"{len(lacking)} weights of the multimodal language model are missing, the first is {lacking[0]!r}"
        raise UserError(what, where=place, fix="get the complete checkpoint")
    return model.eval().requires_grad_(False)


class _NoVideo(dict[str, Any]):
    """Stands where a video processor would, and says nothing of itself to those who write a processor down or ask it for its defaults."""

    model_input_names: ClassVar[list[str]] = []
    num_frames = fps = None


def load_processor(folder: Path, config: Any, where: str) -> Any:
    """The processor of `folder`, for chats without videos.

    Args:
        folder: of the checkpoint.
        config: of its model.
        where: for messages.

    Raises:
        UserError: no processor, no chat template, no image preprocessing, or no fast tokenizer, which alone tells where in the text a token lies.
    """
    with _told(folder, "processor"):
        kind = _processor_class(folder, config)
    if kind is None or "image_processor" not in kind.get_attributes():
        raise UserError(f"no processor of images and chats is known for a model of type {config.model_type!r}", where=where, fix=CHOOSE)
    parts = [_part(folder, name, where) for name in kind.get_attributes()]
    with _told(folder, "processor"), _spoken_numbers(kind):
        processor = _assembled(kind, folder, parts)
    _check_template(processor, where)
    if processor.tokenizer.pad_token is None:  # some Llama tokenizers: the attention mask hides what stands there
        processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


def _processor_class(folder: Path, config: Any) -> Any:
    """The class that the checkpoint names, as AutoProcessor looks for it, else the one of its architecture, else None."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING, processor_class_from_name

    for name in ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        path = folder / name
        named = json.loads(path.read_text(encoding="utf-8")).get("processor_class") if path.is_file() else None
        found = processor_class_from_name(named) if named else None
        if found is not None:
            return found
    return PROCESSOR_MAPPING.get(type(config), None)


def _part(folder: Path, name: str, where: str) -> Any:
    from transformers import AutoImageProcessor

    if name == "video_processor":
        return _NoVideo()
    if name == "image_processor":
        with _told(folder, "image preprocessing"):
            return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)
    if name != "tokenizer":
        raise UserError(f"the processor needs a {name.replace('_', ' ')} besides images and text", where=where, fix=CHOOSE)
    tokenizer = load_tokenizer(folder)
    if not tokenizer.is_fast:
        raise UserError("the tokenizer does not tell where in a text its tokens lie", where=where, fix="add a tokenizer.json to the checkpoint")
    if len(tokenizer) == len(tokenizer.get_added_vocab()):  # transformers makes an empty one of some architectures where the files are missing
        raise UserError("the tokenizer has no vocabulary", where=where, fix="get the complete checkpoint, with its tokenizer.json")
    return tokenizer


def _assembled(kind: Any, folder: Path, parts: list[Any]) -> Any:
    settings, _ = kind.get_processor_dict(folder, local_files_only=True)
    try:
        return _without_video(kind).from_args_and_dict(parts, settings)
    except (AttributeError, TypeError) as error:  # such as a tokenizer that lacks the image tokens of its architecture
        raise ValueError(str(error)) from error


def _without_video(kind: Any) -> Any:
    """`kind`, but taking _NoVideo for a video processor; without torchvision transformers has no class that one could be derived from."""

    def check(self: Any, name: str, part: Any) -> Any:
        return _NoVideo if isinstance(part, _NoVideo) else kind.check_argument_for_proper_class(self, name, part)

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check, "__module__": kind.__module__})


@contextmanager
def _spoken_numbers(kind: Any) -> Iterator[None]:
    """SmolVLM's processor is not made without the package num2words, with which it only tells the number of a video's frames: str does it here."""
    module = sys.modules[kind.__module__]
    if getattr(module, "num2words", str) is not None:
        yield
        return
    module.__dict__["num2words"] = str
    try:
        yield
    finally:
        module.__dict__["num2words"] = None


def _check_template(processor: Any, where: str) -> None:
    """Gives the processor its tokenizer's chat template where it has none of its own."""
    template = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        fix = "choose the instruction-tuned variant of the model, or put its chat_template.jinja into the folder"
        raise UserError("the checkpoint has no chat template", where=where, fix=fix)
    processor.chat_template = A_FIXED_DAY + template.replace("strftime_now", "a_fixed_day") if "strftime_now" in template else template


def render(processor: Any, turns: list[dict[str, Any]], *, reply: bool) -> str:
    """A conversation as the model's template has it, without thinking aloud.

    Args:
        processor: of the checkpoint.
        turns: role and content of each turn.
        reply: end where the model's own turn begins.
    """
    rendered: str = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=reply, enable_thinking=False)
    return rendered


def image_token_id(model: Any, where: str) -> int:
    """Id of the token that stands where an image is read, once for each of its features.

    The processor's attribute of this name is not it for Gemma 3, where it is the token in front of an image.

    Raises:
        UserError: the checkpoint does not say.
    """
    found = next((value for name in ("image_token_id", "image_token_index") if (value := getattr(model.config, name, None)) is not None), None)
    if found is None:
        raise UserError("the checkpoint does not name its image token", where=where, fix=CHOOSE)
    return int(found)
