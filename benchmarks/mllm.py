"""Throughput of features of a multimodal LLM against a plain loop over transformers, in one process: the ratios are what to read on a busy machine.

    PYTHONPATH=src python -m benchmarks.mllm                        tiny random weights; a CPU takes a chat a pass, in several threads
    PYTHONPATH=src python -m benchmarks.mllm --size mid             on a GPU: a random-weight Qwen2.5-VL of 1.2e9 parameters in bfloat16, several batch sizes
    PYTHONPATH=src python -m benchmarks.mllm --model FOLDER         a checkpoint of your own
    PYTHONPATH=src python -m benchmarks.mllm --cpu-smoke            a few posts on any machine, for the code path alone

The plain loop puts one chat at a time through processor and model and asks for all hidden states. Both sides read the same image files and share the
weights. A pass that is not full is filled with copies, so large batches want many posts. Every post is three chats: text, image, both. Features of each way
are compared with the plain loop's in the same run; one that is wrong stops it. Written: JSON of the rates, the differences, the peak memory, the device and
the versions.

Letters: N chats, D width of the model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import resource
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.features import cost, make_images, make_texts
from tests.unit import tiny_mllm
from torch import Tensor

from causalroute.config import Backbone, Prompt
from causalroute.config import Mllm as Settings
from causalroute.counterfactual.paired import PairInput
from causalroute.features.chats import ChatBackbone
from causalroute.features.encode import encode
from causalroute.features.encoding import Encoding
from causalroute.features.folders import library_versions
from causalroute.features.inputs import Input, sides
from causalroute.features.store import Store

PROMPT = Prompt(question="Is this post sarcastic? Answer yes or no.", answers={"literal": "no", "sarcastic": "yes"})
BATCHES = (1, 4, 16, 64)
"""Chats of a pass that are tried on a GPU."""
PLAIN = "plain loop"
NEAR = {"float32": 2e-3, "bfloat16": 6e-2, "float16": 1e-2}
"""Largest relative difference of a chat's features: of rounding to half precision and of sums in another order."""


def mid(ids: dict[str, int]) -> dict[str, Any]:
    """Settings of a Qwen2.5-VL between toy and product."""
    vision = {"depth": 16, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "patch_size": 14, "out_hidden_size": 1536, "window_size": 112}
    tower = {"hidden_size": 1536, "intermediate_size": 6144, "num_hidden_layers": 24, "num_attention_heads": 12, "max_position_embeddings": 4096}
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    text = tiny_mllm.language(ids) | tower | {"num_key_value_heads": 2, "rope_parameters": rope}
    return {"text_config": text, "vision_config": {**vision, "fullatt_block_indexes": [7, 15]}, **tiny_mllm.qwen_ids(ids)}


def make_model(folder: Path, size: str, kind: str) -> Path:
    """A checkpoint with random weights; `kind` is one of `tiny_mllm.KINDS`."""
    if size == "tiny":
        return tiny_mllm.save_mllm(folder, kind)
    own = tiny_mllm.RECIPES["qwen2_5_vl"]
    pixels = own.pixels | {"patch_size": 14, "size": {"shortest_edge": 56 * 56, "longest_edge": 448 * 448}}
    recipe = dataclasses.replace(own, config=lambda ids: tiny_mllm.Qwen2_5_VLConfig(**mid(ids)), pixels=pixels)
    return tiny_mllm.save(folder, recipe, dtype=torch.bfloat16)


def make_posts(root: Path, count: int, side: int) -> list[Input]:
    """Three inputs for each post: text, image, both."""
    texts, images = make_texts(count), make_images(root, count, side)
    pairs = [PairInput((text, image)) for text, image in zip(texts, images, strict=True)]  # type: ignore[arg-type]
    return [one for post in zip(texts, images, pairs, strict=True) for one in post]


@torch.inference_mode()
def plain_loop(backbone: ChatBackbone, inputs: Sequence[Input], root: Path) -> Tensor:
    """The last state of each chat and the mean over its image, (N, 2D); the second half is 0 where the chat has a text."""
    network, processor = backbone.model.network, backbone.model.processor
    found = []
    for item in inputs:
        text, image = sides(item)
        said = ("" if text is None else PROMPT.text.replace("{text}", text.text) + "\n") + PROMPT.question
        content = ([] if image is None else [{"type": "image", "image": image.load(root)}]) + [{"type": "text", "text": said}]
        chat = [{"role": "user", "content": content}]
        ready = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt")
        ready = {name: value.to(network.device, network.dtype if value.is_floating_point() else value.dtype) for name, value in ready.items()}
        states = network(**ready, output_hidden_states=True).hidden_states[-1][0].float()  # (L, D)
        pictured = states[ready["input_ids"][0] == backbone.model.image_token].mean(0) if text is None else torch.zeros_like(states[0])
        found.append(torch.cat([states[-1], pictured]).cpu())
    return torch.stack(found)


def difference(features: Tensor, plain: Tensor) -> float:
    """Largest |features - plain| / |plain| of a chat, over what both sides compute."""
    features = features.float()
    features = torch.where(plain == 0, 0.0, features)  # the plain loop does not know where a text's tokens lie
    return ((features - plain).norm(dim=1) / plain.norm(dim=1)).max().item()


def peak(device: torch.device) -> float:
    """Megabytes: of the GPU since the last reset, of the process since its start on a CPU."""
    return (torch.cuda.max_memory_allocated() / 2**20) if device.type == "cuda" else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ways(device: torch.device, smoke: bool, threads: int) -> list[tuple[int, int]]:
    """(batch size, threads) to try."""
    if device.type == "cuda":
        return [(batch, threads) for batch in BATCHES]
    return [(1, 1), (1, 2)] if smoke or threads < 3 else [(1, 1), (1, 2), (1, threads)]


def measure(backbone: ChatBackbone, inputs: Sequence[Input], root: Path, tried: Sequence[tuple[int, int]], repeats: int) -> list[dict[str, Any]]:
    """Best of `repeats` rounds of each way, the ways taking turns so that load on the machine hits all of them.

    Raises:
        SystemExit: features differ.
    """
    device, kept, rows = backbone.model.device, {}, {}

    def ours(batch: int, threads: int, store: Path) -> Callable[[], object]:
        def work() -> None:
            backbone.batch_size = batch
            job = Encoding(backbone, Store(store, backbone.key), root, threads)  # type: ignore[arg-type]
            kept["features"] = job.store.pooled(encode(job, inputs))

        return work

    def plain() -> None:
        kept["plain"] = plain_loop(backbone, inputs, root)

    plain_loop(backbone, inputs[:3], root)
    for trial in range(repeats):
        works: dict[str, Callable[[], object]] = {PLAIN: plain}
        works |= {f"batch {batch}, threads {threads}": ours(batch, threads, root / f"{batch} {threads} {trial}") for batch, threads in tried}
        for way, work in works.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            speed, processor = cost(work, len(inputs))
            row = rows.setdefault(way, {"way": way, "chats_per_second": 0.0, "cpu_ms": float("inf"), "difference": 0.0})
            row |= {"chats_per_second": max(row["chats_per_second"], speed), "cpu_ms": min(row["cpu_ms"], processor), "peak_mb": peak(device)}
            if way != PLAIN:
                row["difference"] = max(row["difference"], difference(kept["features"], kept["plain"]))
                if not row["difference"] <= NEAR[backbone.settings.dtype]:
                    raise SystemExit(f"{way}: features differ by {row['difference']:.3g}")
    base = rows[PLAIN]["chats_per_second"]
    return [
        {key: value if isinstance(value, str) else round(value, 5) for key, value in (row | {"ratio": row["chats_per_second"] / base}).items()}
        for row in rows.values()
    ]


def machine(backbone: ChatBackbone) -> dict[str, Any]:
    """What the figures were taken on."""
    device, network = backbone.model.device, backbone.model.network
    found = {"python": platform.python_version(), "versions": library_versions(), "parameters": sum(weight.numel() for weight in network.parameters())}
    found |= {"architecture": type(network).__name__, "dtype": backbone.settings.dtype}
    if device.type == "cuda":
        return found | {"device": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return found | {"device": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}


def main() -> None:
    """Prints one line a way and writes mllm.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/out/mllm"), help="folder of the results")
    parser.add_argument("--model", type=Path, help="folder of a checkpoint, instead of random weights")
    parser.add_argument("--size", choices=("tiny", "mid"), default="tiny", help="of the random weights")
    parser.add_argument("--kind", choices=tiny_mllm.KINDS, default="qwen2_5_vl", help="architecture of the tiny weights")
    parser.add_argument("--posts", type=int, default=0, help="0: 64 for tiny weights, 512 for others")
    parser.add_argument("--threads", type=int, default=8, help="that prepare chats on a GPU, and most of those tried on a CPU")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cpu-smoke", action="store_true", help="a few posts and tiny weights, on the CPU")
    args = parser.parse_args()
    torch.set_num_threads(1)
    smoke = args.cpu_smoke
    small = smoke or (args.model is None and args.size == "tiny")
    with tempfile.TemporaryDirectory() as folder:
        model = make_model(Path(folder) / "model", "tiny" if smoke else args.size, args.kind) if smoke or args.model is None else args.model
        dtype = "bfloat16" if torch.cuda.is_available() and not small else "float32"
        # Both sides see images as they are: the plain loop does not scale them down.
        settings = Settings(prompts=(PROMPT,), image_side=0, dtype=dtype, zero_shot=False, device="cpu" if smoke else "auto")  # type: ignore[arg-type]
        backbone = ChatBackbone(Backbone(kind="mllm", model=str(model), batch_size=max(BATCHES), mllm=settings), "benchmark")
        inputs = make_posts(Path(folder), 3 if smoke else args.posts or (64 if small else 512), 48 if small else 448)
        rows = measure(backbone, inputs, Path(folder), ways(backbone.model.device, smoke, args.threads), 1 if smoke else args.repeats)
    for row in rows:
        print(
            f"{row['way']:22} {row['chats_per_second']:9.1f} chats/s  {row['ratio']:6.2f} x plain  {row['peak_mb']:8.0f} MB  difference {row['difference']:.1e}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(backbone), "chats": len(inputs), "rows": rows}
    (args.out / "mllm.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
