"""The measured tables of docs/routing.md: how rows become lines, which goals they reach, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import roofline, routing, routing_docs, routing_timing
from benchmarks.routing_timing import Row

ROOT = Path(__file__).resolve().parents[2]
PAGE = "".join(f"# {name}\n\n<!-- measured: {name} -->\nnothing yet\n<!-- end -->\n\nkept\n" for name in routing_docs.BLOCKS)
ABOUT = {"torch": "2.13.0", "triton": "3.9.0", "device": "NVIDIA H200", "capability": (9, 0), "copy_gigabytes_per_second": 4300.0}


def row(what: str, step: str, provider: str, milliseconds: float, sizes: tuple[int, int, int, int] = (1 << 20, 64, 2, 0), share: float = 0.75) -> Row:
    return Row(what, step, provider, "bfloat16", *sizes, milliseconds, 30.0, 1 << 20, 3000.0, share)


def synthetic() -> list[Row]:
    router = [row("router", step, name, ms) for step in routing_timing.PASSES for name, ms in (("triton", 0.1), ("eager torch", 0.9), ("torch.compile", 0.25))]
    small = [row("router", "both", "triton", 0.01, (1 << 20, 8, 2, 0), 0.3)]  # under 128 MiB: no goal
    layer = [row("layer", step, name, ms, (1_000_000, 16, 2, 512)) for step in ("forward", "both") for name, ms in (("triton", 1.0), ("plain torch", 1.5))]
    moves = [row("permute", "forward", name, ms, (1_000_000, 16, 2, 512)) for name, ms in (("triton", 0.045), ("sort + bincount", 0.2))]
    return [*router, *small, *layer, *moves, row("graph", "both", "triton", 0.012, (4096, 64, 2, 0))]


def test_a_page_is_filled_in_and_filled_in_again_without_a_change(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    routing_docs.update(page, synthetic(), ABOUT)
    text = page.read_text(encoding="utf-8")
    assert "nothing yet" not in text
    assert text.count("kept") == len(routing_docs.BLOCKS)
    assert "NVIDIA H200" in text
    assert "| bfloat16 | 1048576 | 64, 2 | both | 100.0 | 75% | 9.00x | 2.50x | - | 1.00 | 30 |" in text
    assert "| layer | forward | bfloat16 | 2000000 | 16 | 512 | 1000.0 | 75% | 1.50x | - | 1.00 |" in text
    assert "http://www.w3.org/2000/svg" in (tmp_path / routing_docs.PICTURE).read_text(encoding="utf-8")
    routing_docs.update(page, synthetic(), ABOUT)
    assert page.read_text(encoding="utf-8") == text


def test_goals_are_judged_by_large_logits_and_the_worst_value() -> None:
    found = {words: (measured, reached) for words, measured, reached in routing_docs.goals(synthetic())}
    assert found["forward + backward by copy rate, E <= 16, >= 80 %"] == ("not measured", "-")
    assert found["the same, E = 64, k = 2, >= 70 %"] == ("75%", "yes")
    assert found["against eager torch, E <= 128, >= 8x"] == ("9.0x", "yes")
    assert found["against torch.compile, E <= 128, >= 3x"] == ("2.5x", "no")
    assert found["permutation of 2 M pairs <= 40 us"] == ("45.0 us", "no")
    assert found["layer against plain torch, D <= 512, >= 1.2x"] == ("1.50x, 1.50x", "yes")
    assert found["N = 4096, graph replay, forward + backward <= 15 us"] == ("12.0 us", "yes")
    assert [value for words, value in found.items() if "extra memory" in words] == [("5%", "yes")]


def test_figures_of_a_cpu_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    with pytest.raises(ValueError, match="no CUDA device"):
        routing_docs.update(page, synthetic(), {"device": "x86_64", "torch": "2.13.0"})
    with pytest.raises(SystemExit):
        routing.main(["--out", str(tmp_path), "--cpu-smoke", "--docs", str(page)])
    assert "--docs takes figures of a GPU" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == PAGE


def test_a_page_without_a_block_is_named_before_anything_runs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace("measured: moves", "measured: mvoes"), encoding="utf-8")
    with pytest.raises(ValueError, match="no block for moves"):
        routing_docs.require(page)


def test_the_page_of_the_router_has_every_block_and_names_the_command() -> None:
    page = ROOT / "docs" / "routing.md"
    routing_docs.require(page)
    assert "python -m benchmarks.routing --out benchmarks/out/routing --docs docs/routing.md" in page.read_text(encoding="utf-8")


def test_the_predictions_of_the_page_are_those_of_the_committed_budgets(tmp_path: Path) -> None:
    page, copy = ROOT / "docs" / "routing.md", tmp_path / "page.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    roofline.update(copy, json.loads(roofline.BUDGETS.read_text(encoding="utf-8")))
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8"), "run python -m benchmarks.roofline --docs docs/routing.md"
