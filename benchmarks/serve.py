"""The service under load: clients on loopback, one post a request, against `Predictor.predict` called directly on the same posts.

    PYTHONPATH=src python -m benchmarks.serve --seconds 60                       # a predictor of a few lines in the place of the real one
    PYTHONPATH=src python -m benchmarks.serve --model out/model --seconds 60     # a saved model, served by `causalroute serve`

Direct: batches of `--batch` posts, one after the other, without the service, for as many posts as it answered (single posts: twenty). Both decode the same
images. The ratio of the two rates is what to read on a busy machine: what is lost to HTTP, waiting and batches that are not full. Memory is that of the
server's process: after the warm-up, then at the end; `slope` is its growth in MB per 1000 requests over the second half (flat: no leak).
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from causalroute.rng import generator

ROOT = Path(__file__).resolve().parents[1]
POSTS = 64
"""Different posts, sent in turn."""
SIDE = 224
"""Pixels of an image's side."""
FAKE = """
import socket, sys
from causalroute.cli.serve import serve
from causalroute.serving.http.limits import Limits
from tests.unit.fake_predictor import FakePredictor
sys.exit(serve(FakePredictor(float(sys.argv[1])), socket.create_server(("127.0.0.1", 0)), Limits()))
"""


def posts() -> list[tuple[str, bytes]]:
    """Texts, and smooth noise as JPEG."""
    random = generator(0, "benchmark of the service")
    found = []
    for i in range(POSTS):
        image = Image.fromarray(random.integers(0, 256, (14, 14, 3), dtype=np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        image.save(buffer, format="JPEG", quality=85)
        found.append((f"another {'lovely' if i % 2 else 'dismal'} meeting number {i} at the office #monday #notes", buffer.getvalue()))
    return found


def start(model: str, seconds: float) -> tuple[subprocess.Popen[str], str]:
    """The server as a process of its own, and its address."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    fake, real = ["-c", FAKE, str(seconds)], ["-m", "causalroute", "serve", model, "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, *(real if model else fake)], env=os.environ | paths, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    if found is None:
        raise SystemExit("the server did not start: run `causalroute serve` by hand to see why")
    return process, found[0]


def memory(process: int) -> float:
    """Resident MB of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def client(address: str, until: float, number: int, sent: list[tuple[str, bytes]], explain: bool, seen: list[tuple[float, int]]) -> None:
    """One client that asks again as soon as it is answered."""
    async with httpx.AsyncClient(base_url=address, timeout=60) as found:
        while time.perf_counter() < until:
            text, image = sent[number % len(sent)]
            number += 7
            start = time.perf_counter()
            try:
                answer = await found.post("/v1/predict", params={"explain": explain}, data={"text": text}, files={"image": ("a.jpg", image)})
                seen.append((time.perf_counter() - start, answer.status_code))
            except httpx.HTTPError:
                seen.append((time.perf_counter() - start, 0))


async def load(address: str, process: int, clients: int, seconds: float, explain: bool) -> tuple[list[tuple[float, int]], list[tuple[int, float]]]:
    """Seconds and status of all requests, and (requests so far, MB) once a second."""
    seen: list[tuple[float, int]] = []
    sizes: list[tuple[int, float]] = []
    until = time.perf_counter() + seconds
    sent = posts()
    tasks = [asyncio.create_task(client(address, until, i * len(sent) // clients, sent, explain, seen)) for i in range(clients)]
    while time.perf_counter() < until:
        sizes.append((len(seen), memory(process)))
        await asyncio.sleep(1)
    await asyncio.gather(*tasks)
    return seen, sizes


def direct(model: str, seconds: float, batch: int, count: int, explain: bool) -> float:
    """Posts per second of `predict` alone, images decoded as the service does."""
    from causalroute.serving.http.limits import decoded
    from causalroute.serving.posts import Post

    if model:
        from causalroute.serving.predictor import Predictor

        predictor: Any = Predictor.load(model)
    else:
        from tests.unit.fake_predictor import FakePredictor

        predictor = FakePredictor(seconds)
    predictor.warm()
    sent = posts()

    def chunk(first: int, size: int) -> None:
        chosen = [sent[i % len(sent)] for i in range(first, first + size)]
        predictor.predict([Post(text, decoded(image, 24_000_000, "image")) for text, image in chosen], explain=explain)

    chunk(0, batch)
    start = time.perf_counter()
    for first in range(0, count, batch):
        chunk(first, min(batch, count - first))
    return count / (time.perf_counter() - start)


def told(seen: list[tuple[float, int]], sizes: list[tuple[int, float]], seconds: float) -> dict[str, Any]:
    """Figures of the load."""
    good = np.array([took for took, status in seen if status == 200])
    errors: dict[str, int] = {}
    for _, status in seen:
        if status != 200:
            errors[str(status)] = errors.get(str(status), 0) + 1
    late = np.array(sizes[len(sizes) // 2 :])
    slope = float(np.polyfit(late[:, 0] / 1000, late[:, 1], 1)[0]) if len(late) > 2 else float("nan")
    spread = dict(zip(("p50", "p95", "p99"), (1000 * np.quantile(good, (0.5, 0.95, 0.99))).round(1).tolist(), strict=True)) if len(good) else {}
    return {
        "requests": len(seen), "errors": errors, "per_second": len(good) / seconds, "milliseconds": spread,
        "memory_mb": {"start": sizes[min(5, len(sizes) - 1)][1], "end": sizes[-1][1], "slope": slope},
    }  # fmt: skip


def main() -> None:
    """Serves, loads, compares, prints JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="folder of a saved model; default: the predictor of the tests")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32, help="posts of a direct call")
    parser.add_argument("--explain", action="store_true")
    parser.add_argument("--fake-seconds", type=float, default=0.02, help="what a call of the fake takes, and a tenth of it for each post")
    chosen = parser.parse_args()
    process, address = start(chosen.model, chosen.fake_seconds)
    try:
        seen, sizes = asyncio.run(load(address, process.pid, chosen.clients, chosen.seconds, chosen.explain))
        lines = httpx.get(f"{address}/metrics").text
        calls = float(re.findall(r"^causalroute_batch_posts_count (\S+)", lines, re.M)[0])
    finally:
        process.terminate()
        code = process.wait(30)
    found = told(seen, sizes, chosen.seconds) | {"posts_per_call": len(seen) / calls, "exit_code": code}
    rates = {size: direct(chosen.model, chosen.fake_seconds, size, count, chosen.explain) for size, count in ((1, 20), (chosen.batch, len(seen)))}
    found |= {f"direct_batches_of_{size}": {"per_second": rate, "ratio": found["per_second"] / rate} for size, rate in rates.items()}
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
