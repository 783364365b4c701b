"""Contrastive training of the default's own small CLIP, so that the default run downloads nothing.

The model is a `transformers.CLIPModel` of tiny width with a word-level tokenizer, saved in HuggingFace format: `AutoModel`,
`AutoTokenizer`, `AutoImageProcessor` and `AutoProcessor` load the folder as they load openai/clip-vit-*. The loss is CLIP's,

    L = (CE(s, diag) + CE(s^T, diag)) / 2,    s_ij = scale * cos(text_i, image_j),

on generated label-free captioned images (`data.planted.captions`). Half of every batch shares background family and face colour, so
that the face itself has to be read; some words are replaced by [MASK] and some patches by grey, since counterfactual views
contain both.

Letters: B pairs per batch, N images, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from causalroute.config import Pretrain
from causalroute.data.planted import captions, render
from causalroute.errors import UserError
from causalroute.features.loading import quiet
from causalroute.io import atomic, canonical_json, read_tensors, sha256_bytes, write_json, write_tensors
from causalroute.rng import generator, substream

if TYPE_CHECKING:
    from transformers import CLIPModel, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[MASK]", "[BOS]", "[EOS]")
"""Their ids are their places. The end token's id must not be 2: CLIP would then take the largest id as the end of a text."""
LENGTH = 32
"""Longest text in tokens."""
CHECKPOINT_EVERY = 50
"""Steps between two checkpoints."""
MASKED_CAPTIONS, MASKED_WORDS = 0.3, 0.3
"""Share of captions with masked words, and of words masked in those."""
MASKED_IMAGES = 0.3
"""Share of images with a grey rectangle."""
HELD_OUT = 256
"""Images that the finished model is checked on."""


class Pool:
    """The training images and captions.

    Attributes:
        pixels: uint8 (N, S, S, 3).
        ids: int64 (N, 3, T), padded with 0.
        group: int64 (N,), equal where background family and face colour are.
        smiles: bool (N,), of the faces; nothing is trained on it.
    """

    def __init__(self, seed: int, first: int, count: int, tokenizer: PreTrainedTokenizerFast, styles: bool = False) -> None:
        items = [captions.captioned(seed, index, styles) for index in range(first, first + count)]
        self.pixels = np.stack([np.asarray(render.render(item.scene)) for item in items])
        texts = [caption for item in items for caption in item.captions]
        encoded = tokenizer(texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="np")
        self.ids = encoded["input_ids"].reshape(count, captions.CAPTIONS, LENGTH)
        self.group = np.array([item.group for item in items])
        self.smiles = np.array([item.scene.face.polarity > 0 for item in items])


def pretrain(settings: Pretrain, out: Path) -> None:
    """Trains the backbone and writes the folder `out`; the same settings give the same bytes, also after an interruption.

    Raises:
        UserError: an image size other than the generator's, or one that patches do not tile.
    """
    _check(settings)
    out = Path(out)
    with _one_thread():
        tokenizer = build_tokenizer(settings.styles)
        model = build_model(settings, len(tokenizer))
        pool = Pool(settings.seed, 0, settings.images, tokenizer, settings.styles)
        losses = _train(settings, model, pool, out.parent / f".{out.name}.checkpoint.safetensors")
        held_out = Pool(settings.seed, settings.images, HELD_OUT, tokenizer, settings.styles)
        _save(settings, model, tokenizer, losses, held_out, out)


def _check(settings: Pretrain) -> None:
    where = "params.yaml: backbones.*.pretrain"
    if settings.image_size != render.SIZE:
        raise UserError(f"image_size is {settings.image_size}", where=where, fix=f"set it to {render.SIZE}, the size of the generated images")
    if settings.image_size % settings.patch_size:
        raise UserError(f"patches of {settings.patch_size} pixels do not tile {settings.image_size}", where=where, fix="choose a divisor of image_size")
    if settings.width % 16:
        raise UserError(f"width is {settings.width}", where=where, fix="choose a multiple of 16, the width of a head")
    if settings.images < settings.batch_size:
        raise UserError(f"{settings.images} images do not fill a batch of {settings.batch_size}", where=where, fix="raise images or lower batch_size")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: sums in one order, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def build_tokenizer(styles: bool = False) -> PreTrainedTokenizerFast:
    """A lower-casing word tokenizer over the generator's vocabulary: [BOS] words [EOS]; a hashtag is one token."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *captions.vocabulary(styles)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"#?\w+|[^\w\s]"), behavior="removed", invert=True)
    core.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=[(t, vocabulary[t]) for t in ("[BOS]", "[EOS]")])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]", bos_token="[BOS]", eos_token="[EOS]",
        model_max_length=LENGTH, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def build_model(settings: Pretrain, vocabulary: int) -> CLIPModel:
    """A CLIP of the given size with seeded weights."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": settings.width, "intermediate_size": 4 * settings.width, "num_hidden_layers": settings.layers}
    tower |= {"num_attention_heads": settings.width // 16, "projection_dim": settings.width}
    pad, _, _, bos, eos = range(len(SPECIAL))
    text = tower | {"vocab_size": vocabulary, "max_position_embeddings": LENGTH, "pad_token_id": pad, "bos_token_id": bos, "eos_token_id": eos}
    vision = tower | {"image_size": settings.image_size, "patch_size": settings.patch_size}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=settings.width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(substream(settings.seed, "pretrain", "weights"))
        return CLIPModel(config)


def _train(settings: Pretrain, model: CLIPModel, pool: Pool, checkpoint: Path) -> list[float]:
    """Trains in place from the last checkpoint on; the loss of every step."""
    key = _key(settings, pool)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.01)
    losses = _restore(checkpoint, key, model, optimizer)
    model.train()
    for step in range(len(losses), settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * rate(step, settings.steps)
        optimizer.zero_grad()
        loss = model(**batch(settings, pool, step), return_loss=True).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % CHECKPOINT_EVERY == 0:
            _checkpoint(checkpoint, key, model, optimizer, losses)
    checkpoint.unlink(missing_ok=True)
    return losses


def rate(step: int, steps: int) -> float:
    """Cosine schedule with a warm-up over the first twentieth of the steps, relative to the peak."""
    warm = max(steps // 20, 1)
    return min((step + 1) / warm, 1.0) * 0.5 * (1.0 + float(np.cos(np.pi * step / steps)))


def batch(settings: Pretrain, pool: Pool, step: int) -> dict[str, torch.Tensor]:
    """The batch of a step, a function of (settings, step) alone: input_ids and attention_mask (B, T), pixel_values (B, 3, S, S)."""
    rng = generator(settings.seed, "pretrain", "batch", step)
    rows = _rows(rng, pool.group, settings.batch_size)
    ids = pool.ids[rows, rng.integers(captions.CAPTIONS, size=len(rows))].copy()
    masked = (rng.random((len(rows), 1)) < MASKED_CAPTIONS) & (rng.random(ids.shape) < MASKED_WORDS) & (ids >= len(SPECIAL))
    ids[masked] = SPECIAL.index("[MASK]")
    pixels = pool.pixels[rows].copy()
    for row in np.flatnonzero(rng.random(len(rows)) < MASKED_IMAGES):
        (y, x), size = rng.integers(0, settings.image_size - 8, size=2), int(rng.integers(8, 24))
        pixels[row, y : y + size, x : x + size] = 128
    width = int((ids != 0).sum(axis=1).max())
    text = torch.from_numpy(ids[:, :width])
    return {"input_ids": text, "attention_mask": (text != 0).long(), "pixel_values": to_pixels(pixels)}


def _rows(rng: np.random.Generator, group: np.ndarray, size: int) -> np.ndarray:
    """Rows of a batch: half from everywhere, half from one group (fewer where the group is smaller)."""
    first = rng.choice(len(group), size=size, replace=False)
    members = np.flatnonzero(group == group[first[0]])
    rest = rng.permutation(np.setdiff1d(members, first[: size // 2]))[: size - size // 2]
    return np.concatenate([first[: size - len(rest)], rest])


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """uint8 (B, S, S, 3) -> float32 (B, 3, S, S) in [-1, 1], as the saved image processor gives it."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1.0


def _key(settings: Pretrain, pool: Pool) -> str:
    """What a checkpoint belongs to: the settings and the training data."""
    from dataclasses import asdict

    return sha256_bytes(canonical_json(asdict(settings)).encode(), pool.pixels.tobytes(), pool.ids.tobytes())


def _checkpoint(path: Path, key: str, model: CLIPModel, optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["losses"] = torch.tensor(losses, dtype=torch.float64)
    write_tensors(path, {name: value.clone() for name, value in tensors.items()}, {"key": key})


def _restore(path: Path, key: str, model: CLIPModel, optimizer: torch.optim.Optimizer) -> list[float]:
    """Loads a checkpoint of the same settings and data, if there is one; the losses so far."""
    if not path.exists():
        return []
    tensors, metadata = read_tensors(path)
    if metadata.get("key") != key:
        return []
    model.load_state_dict({name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, field = name.split(".")
            state.setdefault(int(index), {})[field] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return [float(loss) for loss in tensors["losses"]]


@torch.no_grad()
def check(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, pool: Pool) -> dict[str, float]:
    """What the model can do with unseen pairs.

    image_to_text, text_to_image: share of images whose own first caption is the nearest of N, and the reverse. Captions tell little of an
    image, so both are small; chance is 1 / N. faces: share of faces read rightly by comparing with "a smiling face" and "a frowning face".
    """
    model.eval()
    text, pixels, right = torch.from_numpy(pool.ids[:, 0]), to_pixels(pool.pixels), torch.arange(len(pool.ids))
    scores = model(input_ids=text, attention_mask=(text != 0).long(), pixel_values=pixels).logits_per_image  # (N, N)
    named = tokenizer(["a frowning face", "a smiling face"], return_tensors="pt")
    smiles = model(**named, pixel_values=pixels).logits_per_image.argmax(1).numpy() == 1
    nearest = {"image_to_text": scores.argmax(1) == right, "text_to_image": scores.argmax(0) == right}
    return {"candidates": len(right), **{name: float(hit.float().mean()) for name, hit in nearest.items()}, "faces": float((smiles == pool.smiles).mean())}


def _save(settings: Pretrain, model: CLIPModel, tokenizer: PreTrainedTokenizerFast, losses: list[float], held_out: Pool, out: Path) -> None:
    """Writes the folder; pretrain.json comes last, so that its presence means that all is there."""
    import tempfile

    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    quiet()
    side = settings.image_size
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True
    )
    with tempfile.TemporaryDirectory() as folder:
        for part in (model.eval(), tokenizer, processor):
            part.save_pretrained(folder)
        for path in sorted(Path(folder).iterdir()):
            with atomic(out / path.name) as temporary:
                temporary.write_bytes(path.read_bytes())
    report: dict[str, Any] = {"steps": len(losses), "images": settings.images, "losses": [round(loss, 6) for loss in losses]}
    report |= {"parameters": sum(p.numel() for p in model.parameters()), "held_out": check(model, tokenizer, held_out)}
    write_json(out / "pretrain.json", report)
