"""Any table: columns guessed or told to be missing, bad rows and images listed, twins across splits, "has an image" as a cue."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from safetensors.numpy import save_file

from causalroute.audit import verdict
from causalroute.audit.table import Table, audit_table, choose
from causalroute.config import Audit
from causalroute.errors import UserError

FEW = Audit(min_count=5)
Row = dict[str, Any]


def rows(items: int = 120, rho: float = 0.9, seed: int = 0) -> list[Row]:
    """Posts whose hashtag follows the label with probability rho."""
    random = np.random.default_rng(seed)
    found = []
    for i in range(items):
        label = int(random.integers(2))
        tag = ("#east", "#north")[label if random.random() < rho else 1 - label]
        words = " ".join(random.choice(["bread", "rain", "bus", "good", "awful", "market"], 5).tolist())
        found.append({"tweet_text": f"{words} {tag} n{i}", "mood": ("bad", "fine")[label]})
    return found


def save(path: Path, posts: list[Row]) -> Path:
    """As the ending says."""
    names = list(posts[0])
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(post) for post in posts))
    elif path.suffix == ".parquet":
        pl.DataFrame(posts).write_parquet(path)
    else:
        with path.open("w", newline="") as stream:
            writer = csv.writer(stream, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([names, *([post[name] for name in names] for post in posts)])
    return path


def found_in(tmp_path: Path, posts: list[Row], **table: Any) -> tuple[dict[str, Any], pl.DataFrame]:
    return audit_table(Table(save(tmp_path / "posts.csv", posts), **table), FEW)


def names(found: dict[str, Any]) -> set[str]:
    return {cue["cue"] for cue in found["shortcuts"]}


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_table_gives_the_same(tmp_path: Path, ending: str) -> None:
    found, dropped = audit_table(Table(save(tmp_path / f"posts{ending}", rows())), FEW)
    assert names(found) == {"#east", "#north"}
    assert dropped.height == 0
    assert found["table"]["columns"] == {"text": "tweet_text", "label": "mood", "image": "", "split": "", "id": "", "metadata": []}
    assert any("guessed" in note for note in found["table"]["notes"])
    assert found["labels"].keys() == {"bad", "fine"}
    assert set(found["leaks"]) == {"conflicts_text", "conflicts_image"}, "no split column, no leaks"


def test_columns_that_cannot_be_guessed_are_told(tmp_path: Path) -> None:
    table = Table(save(tmp_path / "posts.csv", [{"a": "x", "mood": "y", "country": "DE"}]))
    with pytest.raises(UserError, match="no column looks like the text") as failure:
        choose(table)
    assert "--text COLUMN" in failure.value.fix
    columns, notes = choose(Table(table.path, text="a"))
    assert (columns.text, columns.label) == ("a", "mood")
    assert any("columns not looked at: country" in note for note in notes)
    with pytest.raises(UserError, match="no column 'nonsense'"):
        audit_table(Table(table.path, text="nonsense"), FEW)
    with pytest.raises(UserError, match="is missing"):
        choose(Table(tmp_path / "none.csv"))


def test_an_id_column_that_repeats_is_not_used(tmp_path: Path) -> None:
    posts = [post | {"id": str(i // 2)} for i, post in enumerate(rows())]
    found, dropped = found_in(tmp_path, posts)
    assert found["table"]["columns"]["id"] == ""
    assert dropped.height == 0
    _, dropped = found_in(tmp_path, posts, id="id")
    assert set(dropped["reason"]) == {"duplicate_id"}


def test_bad_rows_are_listed_with_their_reason(tmp_path: Path) -> None:
    posts = [post | {"split": "train"} for post in rows()]
    posts[0]["mood"] = "Fine"
    posts[1]["mood"] = "baad"
    posts[2]["mood"] = ""
    posts[3]["tweet_text"] = "   "
    posts[4]["split"] = "trian"
    found, dropped = found_in(tmp_path, posts)
    assert found["dropped"] == {"no_content": 1, "unknown_label": 3, "unknown_split": 1}
    told = " ".join(dropped["where"])
    for hint in ("posts.csv, line 2: label 'Fine'; did you mean 'fine'?", "did you mean 'bad'?", "no label", "did you mean 'train'?"):
        assert hint in told
    assert found["table"]["used"] == 115


def test_wrong_encoding_is_listed(tmp_path: Path) -> None:
    path = save(tmp_path / "posts.csv", rows())
    path.write_bytes(path.read_bytes() + "caf\xe9 #east,bad\n".encode("latin-1"))
    found, dropped = audit_table(Table(path), FEW)
    assert dropped.rows() == [("", "not_utf8", "posts.csv, line 122")]
    assert names(found) == {"#east", "#north"}


def test_hopeless_tables_say_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="fewer than two classes"):
        found_in(tmp_path, [post | {"mood": "bad"} for post in rows()])
    with pytest.raises(UserError, match="that is no class"):
        found_in(tmp_path, [post | {"mood": f"{i:07d}"} for i, post in enumerate(rows())])
    with pytest.raises(UserError, match="no post is in the split 'train'"):
        found_in(tmp_path, [post | {"split": "valid"} for post in rows()])
    with pytest.raises(UserError, match="unusable for one reason: unknown_label"):
        found_in(tmp_path, rows(), classes=("good", "evil"))


def test_strange_posts_do_no_harm(tmp_path: Path) -> None:
    strange = ["a" * 100_000, "<script>alert(1)</script>", "שלום \u200f#עולם", "\u200b\u200b", "🎉" * 50, "x\x1b[31mred", "=cmd|' /C calc'!A0"]
    posts = [*rows(), *({"tweet_text": text, "mood": "bad"} for text in strange)]
    found, dropped = found_in(tmp_path, posts)
    assert dropped.height == 0
    assert names(found) == {"#east", "#north"}


def pictures(tmp_path: Path, posts: list[Row]) -> list[Row]:
    """An image for most posts of one class, few of the other."""
    shown = []
    for i, post in enumerate(posts):
        has = i % 5 != 0 if post["mood"] == "fine" else i % 5 == 0
        if has:
            noise = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((32, 32)).save(tmp_path / f"{i}.png")
        shown.append(post | {"image": f"{i}.png" if has else ""})
    return shown


def test_that_a_post_has_an_image_is_a_cue(tmp_path: Path) -> None:
    posts = pictures(tmp_path, rows(rho=0.5))
    found, dropped = found_in(tmp_path, posts)
    assert names(found) == {"has image"}
    assert found["probes"]["has image"]["low"] > 0.65 > found["probes"]["has image"]["majority"]
    assert verdict.MEASURES["missing"](found) > 0.2
    gone, broken = [post["image"] for post in posts if post["image"]][:2]
    (tmp_path / gone).unlink()
    (tmp_path / broken).write_text("no image")
    found, dropped = found_in(tmp_path, posts)
    assert set(dropped["reason"]) == {"missing_image", "not_an_image"}
    assert found["table"]["used"] == len(posts), "the text is kept"


def test_images_that_are_nowhere_are_a_mistake_of_the_root(tmp_path: Path) -> None:
    posts = [post | {"image": f"{i}.png"} for i, post in enumerate(rows())]
    with pytest.raises(UserError, match="120 of 120 images cannot be used: missing_image") as failure:
        found_in(tmp_path, posts)
    assert "--root FOLDER" in failure.value.fix
    assert names(found_in(tmp_path, posts, image="")[0]) == {"#east", "#north"}


def test_twins_across_splits_and_labels_at_odds(tmp_path: Path) -> None:
    posts = [post | {"split": ("train", "train", "train", "dev", "test")[i % 5]} for i, post in enumerate(rows())]
    posts[4]["tweet_text"] = posts[0]["tweet_text"].upper()
    posts[9]["tweet_text"] = posts[3]["tweet_text"] + " https://t.co/x"
    posts[2] = posts[1] | {"mood": "fine" if posts[1]["mood"] == "bad" else "bad"}
    for post in posts:
        post["mood"] = "" if post["split"] == "test" else post["mood"]
    found, dropped = found_in(tmp_path, posts)
    assert dropped.height == 0, "a test post needs no label"
    assert (found["leaks"]["exact_text"], found["leaks"]["exact_text_train"], found["leaks"]["conflicts_text"]) == (2, 1, 2)
    assert found["leaked"]["exact_text"] == ["10", "5"]
    assert found["items"] == {"train": 72, "valid": 24}


def test_metadata_and_features_come_with_the_table(tmp_path: Path) -> None:
    posts = [post | {"source": "web" if post["mood"] == "bad" else "phone", "year": str(1990 + i % 20)} for i, post in enumerate(rows(rho=0.5))]
    features = np.array([[1.0, 0.1 * (i % 3)] if post["mood"] == "bad" else [0.1 * (i % 3), 1.0] for i, post in enumerate(posts)], dtype=np.float16)
    save_file({"v": features, "t": features[:3]}, tmp_path / "f.safetensors")
    found, _ = found_in(tmp_path, posts, metadata=("source", "year"), features=tmp_path / "f.safetensors")
    assert {"source=web", "source=phone"} <= names(found)
    assert found["probes"]["metadata"]["accuracy"] == 1.0
    assert found["probes"]["image features"]["accuracy"] == 1.0
    save_file({"v": features[:-1]}, tmp_path / "f.safetensors")
    with pytest.raises(UserError, match="one row for each of the 120 rows"):
        found_in(tmp_path, posts, features=tmp_path / "f.safetensors")
    (tmp_path / "f.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="feature file cannot be read"):
        found_in(tmp_path, posts, features=tmp_path / "f.safetensors")


def test_limits(tmp_path: Path) -> None:
    found, _ = found_in(tmp_path, rows())
    values = {name: measure(found) for name, measure in verdict.MEASURES.items()}
    assert values["shortcuts"] == 2
    assert 0.3 < values["explains"] < 0.8
    assert values["effect"] > 2
    assert 0.2 < values["surface"] < 0.5
    assert (values["leaks"], values["near_leaks"], values["missing"], values["auc"]) == (0, 0, 0, 0)
    assert verdict.exceeded(found, {"explains": 0.1, "joint": 0.99, "shortcuts": 2}) == {"explains": (values["explains"], 0.1)}
    assert verdict.parse_limits(["joint=0.05", "leaks=0"]) == {"joint": 0.05, "leaks": 0.0}
    for wrong in ("jiont=1", "joint=much", "joint"):
        with pytest.raises(UserError, match="--fail-on"):
            verdict.parse_limits([wrong])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["mmsd", "mmsd2"])
def test_it_finds_by_itself_what_is_known_of_mmsd(tmp_path: Path, shared: Path, variant: str) -> None:
    """404 of 404 posts with `<num>` are sarcastic in both editions, digits literal; hashtags and emoji codes in the first alone."""
    folder = shared / "data" / {"mmsd": "mmsd/text_json_clean", "mmsd2": "mmsd2/text_json_final"}[variant]
    posts = [
        {"text": post["text"], "label": str(post["label"]), "split": name}
        for name in ("train", "valid")
        for post in json.loads((folder / f"{name}.json").read_text())
    ]
    found, _ = audit_table(Table(save(tmp_path / "posts.parquet", posts)), Audit())
    cues = {cue["cue"]: cue for cue in found["shortcuts"]}
    assert (cues["<num>"]["posts"], cues["<num>"]["in_class"], cues["<num>"]["class"]) == (404, 404, "1")
    assert cues["has number"]["class"] == "0"
    emoji = sum(cue["kind"] == "emoji" for cue in found["shortcuts"])
    assert ("has hashtag" in cues, emoji >= 5) == (variant == "mmsd", variant == "mmsd")
