"""`causalroute evaluate`: a saved model on a labelled table, its intervals, groups, and the biased model beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score
from tests.unit.small_posts import assemble, stand_in, write_table

from causalroute.cli import run
from causalroute.evaluation.statistics import mcnemar

Evaluate = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(autouse=True)
def _model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stand_in(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assemble(Path(), "posts", "causal_moe", Path("model"))


@pytest.fixture
def evaluated(capsys: pytest.CaptureFixture[str]) -> Evaluate:
    def call(*words: str) -> tuple[int, dict[str, Any]]:
        code = run(["evaluate", "model", *words, "--format", "json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def shaky(folder: Path, count: int = 200) -> tuple[Path, np.ndarray, np.ndarray]:
    """A table in which the word is wrong for every tenth post; labels and the stand-in's answers."""
    path = write_table(folder, count)
    lines = path.read_text().splitlines()
    turned = [line.replace("lovely", "awful") if "lovely" in line and n % 10 == 2 else line for n, line in enumerate(lines)]
    marked = [turned[0] + ",country,split"] + [f"{line},{('DE', 'PL', '')[n % 3]},{('train', 'test')[n % 2]}" for n, line in enumerate(turned[1:])]
    path.write_text("\n".join(marked) + "\n")
    rows = marked[1:]
    return path, np.array(["positive" in row for row in rows]), np.array(["lovely" in row for row in rows])


def test_metrics_are_those_of_scikit_learn(tmp_path: Path, evaluated: Evaluate) -> None:
    path, labels, said = shaky(tmp_path)
    code, found = evaluated(str(path))
    assert code == 0
    assert (found["rows"], found["used"], found["dropped"], found["method"]) == (200, 200, {}, "causal_moe")
    assert found["metrics"]["accuracy"]["value"] == pytest.approx((labels == said).mean())
    assert found["metrics"]["f1_macro"]["value"] == pytest.approx(f1_score(labels, said, average="macro"))
    assert found["metrics"]["f1_weighted"]["value"] == pytest.approx(f1_score(labels, said, average="weighted"))
    assert found["classes"]["positive"]["precision"]["value"] == pytest.approx(precision_score(labels, said))
    assert found["classes"]["negative"]["f1"]["value"] == pytest.approx(f1_score(~labels, ~said))
    assert found["classes"]["negative"]["posts"] == int((~labels).sum())
    for metric in found["metrics"].values():
        assert metric["low"] <= metric["value"] <= metric["high"]
    assert found["metrics"]["accuracy"]["high"] - found["metrics"]["accuracy"]["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.1 * 0.9 / 200), rel=0.1)


def test_the_biased_model_is_compared_on_the_same_posts(tmp_path: Path, evaluated: Evaluate) -> None:
    path, labels, said = shaky(tmp_path)
    biased = np.array(["#sunny" in line for line in path.read_text().splitlines()[1:]])
    against = evaluated(str(path))[1]["biased"]
    assert against["method"] == "erm"
    assert against["metrics"]["accuracy"]["value"] == pytest.approx((labels == biased).mean())
    difference = against["difference"]["accuracy"]
    assert difference["mean"] == pytest.approx((labels == said).mean() - (labels == biased).mean())
    assert difference["low"] < difference["mean"] < difference["high"]
    ours, theirs, p = mcnemar((labels == said).astype(float), (labels == biased).astype(float))
    assert against["mcnemar"] == {"only_debiased_right": ours, "only_biased_right": theirs, "p": pytest.approx(p)}


def test_without_a_reference_there_is_nothing_to_compare(tmp_path: Path, evaluated: Evaluate, capsys: pytest.CaptureFixture[str]) -> None:
    assemble(Path(), "posts", "erm", Path("model"), reference="")
    path = write_table(tmp_path, 60)
    assert evaluated(str(path))[1]["biased"] is None
    assert run(["evaluate", "model", str(path)]) == 0
    assert "BIASED" not in capsys.readouterr().out


def test_groups_and_the_worst_of_them(tmp_path: Path, evaluated: Evaluate) -> None:
    path, labels, said = shaky(tmp_path)
    country = np.array([("DE", "PL", "")[n % 3] for n in range(200)])
    found = evaluated(str(path), "--group", "country")[1]
    rates = {name: (labels == said)[country == name].mean() for name in ("DE", "PL")}
    assert {name: group["accuracy"]["value"] for name, group in found["groups"]["country"].items()} == pytest.approx(rates)
    assert found["worst_group"]["value"] == pytest.approx(min(rates.values()))
    assert found["worst_group"]["group"] == f"country: {min(rates, key=rates.__getitem__)}"
    assert evaluated(str(path))[1]["worst_group"] is None
    assert evaluated(str(path), "--only", "country=DE")[1]["groups"] == {}


def test_rows_can_be_chosen(tmp_path: Path, evaluated: Evaluate) -> None:
    path, labels, said = shaky(tmp_path)
    found = evaluated(str(path), "--only", "split=test")[1]
    chosen = np.arange(200) % 2 == 1
    assert (found["rows"], found["used"]) == (100, 100)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx((labels == said)[chosen].mean())


def test_unusable_rows_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_table(tmp_path, 60)
    (tmp_path / "images" / "p7.png").write_bytes(b"no image")
    (tmp_path / "images" / "p8.png").unlink()
    path.write_text(path.read_text() + "odd lovely,images/p1.png,Positive\nnothing,images/p2.png,\n")
    assert run(["evaluate", "model", str(path), "--output-dir", "out"]) == 0
    shown = capsys.readouterr().out
    assert "62 rows, 58 used" in shown
    assert "LEFT OUT: 4 rows" in shown
    for words in ("not_an_image: posts.csv, line 9: images/p7.png", "missing_image", "label 'Positive'; did you mean 'positive'?", "no label"):
        assert words in shown
    assert json.loads(Path("out/evaluation.json").read_text())["dropped"] == {"missing_image": 1, "not_an_image": 1, "unknown_label": 2}
    assert len(Path("out/dropped.csv").read_text().splitlines()) == 5


def test_the_text_says_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, labels, said = shaky(tmp_path)
    assert run(["evaluate", "model", str(path), "--group", "country"]) == 0
    shown = capsys.readouterr().out
    for words in ("accuracy", "macro F1", "weighted F1", "calibration error", "worst group", "CLASSES", "GROUPS country", "AGAINST THE BIASED MODEL (erm)"):
        assert words in shown
    assert f"{100 * (labels == said).mean():.1f} [" in shown
    assert "(McNemar, exact p " in shown


def test_images_reach_the_model_decoded_and_only_where_it_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.unit.small_posts import Predictor

    from causalroute.audit.table import Table
    from causalroute.config import Backbone
    from causalroute.serving import judge
    from causalroute.serving.bundle import Bundle

    path = write_table(tmp_path, 40)
    for visual, sees in {"image": True, "none": False, "attributes": False}.items():
        predictor: Any = Predictor(Bundle(tmp_path, {"visual": visual, "method": "m"}, Backbone(kind="dual_encoder", model="nowhere")))
        answers = judge.answer(predictor, judge.read(Table(path), predictor.classes))
        assert [post.image is not None for post in predictor.seen] == [sees] * 40
        assert not sees or predictor.seen[0].image.size == (40, 32)
        notes = judge.judge(predictor, answers, judge.Evaluate(bootstrap=50))["notes"]
        assert any("not looked at" in note or "attribute words" in note for note in notes) is not sees


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("nowhere.csv",), "there is no such table"),
        (("posts.csv", "--only", "split"), "COLUMN=VALUE"),
        (("posts.csv", "--only", "splat=test"), "splat"),
        (("posts.csv", "--group", "land"), "land"),
        (("posts.csv", "--label", "caption"), "unusable for one reason: unknown_label"),
        (("posts.csv", "--only", "mood=none"), "no row can be used"),
    ],
)
def test_mistakes_end_with_2(tmp_path: Path, words: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_table(tmp_path, 20)
    assert run(["evaluate", "model", *words]) == 2
    assert told in capsys.readouterr().err
