"""Formats: each layout as its publisher has it, and the mistakes of people who write tables."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalroute.config import Columns, Dataset, Source
from causalroute.data.formats import mmsd, mvsa, planted, read, table
from causalroute.data.records import TRUTH, clean
from causalroute.errors import UserError

POLARITY = ("negative", "neutral", "positive")


def dataset(format: str, **settings: Any) -> Dataset:
    base = {"task": "classification", "classes": ("a", "b"), "backbone": "x", "editor": "x", "methods": (), "sources": (Source(kind="planted"),)}
    return Dataset(format=format, **(base | settings))


def mvsa_folder(root: Path, lines: list[str], texts: dict[str, bytes]) -> Path:
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "labelResultAll.txt").write_text("\n".join(["ID\ttext,image", *lines]) + "\n")
    for name, raw in texts.items():
        (root / "data" / f"{name}.txt").write_bytes(raw)
        (root / "data" / f"{name}.jpg").write_bytes(b"")
    return root


def test_mvsa_single(tmp_path: Path) -> None:
    lines = ["1\tpositive,positive", "2\tneutral,negative", "3\tpositive,neutral", "4\tpositive,negative", "5\tneutral", "6\tneutral,neutral"]
    texts = {"1": "größer \n".encode(), "2": b"caf\xe9 \x96 x", "3": b"\x81", "4": b"x", "5": b"x", "7": b"no label"}
    records = mvsa.read(mvsa_folder(tmp_path, lines, texts), dataset("mvsa", variant="single", classes=POLARITY))
    assert records.frame["text"].to_list() == ["größer", "café – x", "\x81".strip()]
    assert records.frame["label"].to_list() == ["positive", "negative", "positive"]
    assert records.frame["group:conflict"].to_list() == ["AGREE", "TEXT-NEUTRAL", "IMAGE-NEUTRAL"]
    assert records.frame["image"][0] == "data/1.jpg"
    assert records.frame["split"].to_list() == [None] * 3
    assert records.notes["text_cp1252"] == records.notes["text_latin-1"] == 1
    reasons = dict(records.dropped.select("id", "reason").iter_rows())
    assert reasons == {"4": "opposite_polarity", "5": "bad_label_line", "6": "missing_text", "7": "no_label_line"}


def test_mvsa_published_split(tmp_path: Path) -> None:
    folder = mvsa_folder(tmp_path, ["1\tpositive,positive", "2\tneutral,negative", "3\tneutral,neutral"], {"1": b"a", "2": b"b", "3": b"c"})
    rows = [{"id": "1", "split": "dev", "label": "positive"}, {"id": "2", "split": "test", "label": "neutral"}]
    (folder / "splits_clmlf.jsonl").write_text("\n".join(map(json.dumps, rows)))
    records = mvsa.read(folder, dataset("mvsa", variant="single", classes=POLARITY))
    assert records.frame["split"].to_list() == ["valid", "id"]
    assert records.notes["split_label_mismatch"] == 1
    assert records.dropped.row(0)[:2] == ("3", "not_in_published_split")
    (folder / "splits_clmlf.jsonl").write_text('{"id": 1, "split": "holdout"}')
    with pytest.raises(UserError, match="published split cannot be read"):
        mvsa.read(folder, dataset("mvsa", variant="single"))


def test_mvsa_multiple_takes_the_majority_per_side(tmp_path: Path) -> None:
    lines = [
        "1\tpositive,neutral\tpositive,neutral\tnegative,positive",
        "2\tpositive,neutral\tneutral,neutral\tnegative,neutral",
        "3\tneutral,negative\tneutral,negative\tpositive,positive",
        "4\tneutral,neutral",
    ]
    records = mvsa.read(mvsa_folder(tmp_path, lines, dict.fromkeys("1234", b"x")), dataset("mvsa", variant="multiple", classes=POLARITY))
    assert records.frame.select("id", "label", "group:conflict").rows() == [("1", "positive", "IMAGE-NEUTRAL"), ("3", "negative", "TEXT-NEUTRAL")]
    assert dict(records.dropped.select("id", "reason").iter_rows()) == {"2": "no_majority", "4": "bad_label_line"}


def test_mvsa_wrong_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="variant"):
        mvsa.read(tmp_path, dataset("mvsa", variant="double"))
    (tmp_path / "MVSA_Single").mkdir()
    with pytest.raises(UserError, match="is missing") as failure:
        mvsa.read(tmp_path, dataset("mvsa", variant="single"))
    assert "MVSA_Single" in failure.value.where


@given(st.sampled_from(POLARITY), st.sampled_from(POLARITY))
def test_mvsa_combination_is_symmetric(text: str, image: str) -> None:
    assert mvsa.combine(text, image) == mvsa.combine(image, text)
    assert (mvsa.combine(text, image) == "") == ({text, image} == {"positive", "negative"})


@given(st.binary(max_size=40))
def test_every_byte_string_decodes(raw: bytes) -> None:
    text, encoding = mvsa.decode(raw)
    assert text.encode(encoding) == raw


def mmsd_folder(root: Path) -> Path:
    for folder in ("mmsd/text_json_clean", "dmsd_cl"):
        (root / folder).mkdir(parents=True)
    for number, name in enumerate(("train", "valid", "test")):
        posts = [{"image_id": 10 * number + label, "text": f"what a day ! emoji_{number} ", "label": label} for label in (0, 1)]
        (root / "mmsd/text_json_clean" / f"{name}.json").write_text(json.dumps(posts))
    (root / "mmsd/extract_all").write_text("['0', 'cat', \"it's\"]\n['1', 'dog', 'red']\n__import__('os').getcwd()\n['20', 'tree']\n")
    (root / "dmsd_cl/clean_image_text.txt").write_text("0 some words\n1 \n20 sign\n")
    (root / "dmsd_cl/ood_all.txt").write_text("[20,what a bad, bad day [sic],1]\n[99,nobody,0]\n[21 broken\n")
    (root / "dmsd_cl/opposite.txt").write_text("[0,turned, with comma,1]\n[1,other,0]\n")
    return root


def test_mmsd_with_attributes(tmp_path: Path) -> None:
    settings = dataset("mmsd", variant="mmsd", classes=("literal", "sarcastic"), positive="sarcastic")
    records = read(mmsd_folder(tmp_path), settings)
    assert records.frame["id"].to_list() == ["0", "1", "10", "11", "20", "21", "20-ood"]
    assert records.frame["split"].to_list() == ["train", "train", "valid", "valid", "id", "id", "ood"]
    assert records.frame["text"][0] == "what a day ! emoji_0 "
    assert records.frame["label"].to_list() == ["literal", "sarcastic"] * 3 + ["sarcastic"]
    assert records.frame["attributes"].to_list()[:2] == ["cat it's some words", "dog red"]
    assert records.frame["attributes"][4] == records.frame["attributes"][6] == "tree sign"
    assert records.frame["text"][6] == "what a bad, bad day [sic]"
    assert records.frame["pair"].to_list() == [None] * 6 + ["20"]
    assert records.frame["image"].null_count() == 7
    assert Counter(records.dropped["reason"]) == {"bad_attribute_line": 1, "rewrites_no_test_post": 1, "bad_line": 1}
    assert mmsd.rewrites(tmp_path, settings).rows() == [("0", "turned, with comma", 1), ("1", "other", 0)]


def test_mmsd_with_images_and_turned_classes(tmp_path: Path) -> None:
    folder = mmsd_folder(tmp_path)
    (folder / "mmsd/dataset_image").mkdir()
    (folder / "mmsd/dataset_image/0.jpg").write_bytes(b"")
    settings = dataset("mmsd", variant="mmsd", classes=("sarcastic", "literal"), positive="sarcastic")
    records = mmsd.read(folder, settings)
    assert records.frame["image"][6] == "mmsd/dataset_image/20.jpg"
    assert records.frame["attributes"].null_count() == 7
    assert records.frame["label"].to_list()[:2] == ["literal", "sarcastic"]
    assert mmsd.rewrites(folder, settings)["label"].to_list() == [0, 1]
    (folder / "dmsd_cl/opposite.txt").unlink()
    assert mmsd.rewrites(folder, settings).height == 0


def test_mmsd_wrong_input(tmp_path: Path) -> None:
    folder = mmsd_folder(tmp_path)
    for settings, words in (
        (dataset("mmsd", variant="v1"), "variant"),
        (dataset("mmsd", variant="mmsd", classes=("a", "b", "c")), "two classes"),
        (dataset("mmsd", variant="mmsd2"), "is missing"),
    ):
        with pytest.raises(UserError, match=words):
            mmsd.read(folder, settings)
    path = folder / "mmsd/text_json_clean/train.json"
    path.write_text('[{"image_id": 5, "text": "x", "label": 3}, {"image_id": 6, "text": "\\ud83d cut", "label": 0}]')
    records = mmsd.read(folder, dataset("mmsd", variant="mmsd"))
    assert ("5", "bad_post", "train.json, post 1") in records.dropped.rows()
    assert records.frame["text"][0] == "\ufffd cut"
    path.write_text('[\n{"image_id": 5,}]')
    with pytest.raises(UserError, match="not valid JSON") as failure:
        mmsd.read(folder, dataset("mmsd", variant="mmsd"))
    assert "line 2" in failure.value.where


ROWS = [
    {"text": 'she said "hi", then\nleft', "image": "i/1.png", "label": "a", "split": "train"},
    {"text": "plain", "image": "", "label": "b", "split": "test"},
]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_table_reads_the_same_from_every_kind(tmp_path: Path, ending: str) -> None:
    frame, path = pl.DataFrame(ROWS), tmp_path / f"posts.{ending}"
    {"csv": frame.write_csv, "tsv": lambda p: frame.write_csv(p, separator="\t"), "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}[ending](path)
    records = read(tmp_path, dataset("table", table=path.name, columns=Columns(split="split", groups=("label",))))
    assert records.frame.select("id", "split", "text", "image", "label", "group:label").rows() == [
        ("1", "train", ROWS[0]["text"], "i/1.png", "a", "a"),
        ("2", "id", "plain", None, "b", "b"),
    ]
    assert records.dropped.height == 0


def test_table_broken_rows_carry_their_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b'text,label\n"two\nlines",a\ncaf\xe9,a\nshort\nfine,b\n\nmore,a\nlast,b\n')
    records = table.read(tmp_path, dataset("table", table="t.csv", columns=Columns(image="")))
    assert records.frame["text"].to_list() == ["two\nlines", "fine", "more", "last"]
    assert records.dropped.rows() == [("", "not_utf8", "t.csv, line 4"), ("", "wrong_number_of_cells", "t.csv, line 5")]
    (tmp_path / "t.jsonl").write_bytes(b'{"text": "x", "label": 1}\n{"text": "y", "label": 2.0, "n": [1]}\n{"text": \n[1]\n{"text": "z", "label": true}\n')
    records = table.read(tmp_path, dataset("table", table="t.jsonl", columns=Columns(image="")))
    assert records.frame["label"].to_list() == ["1", "2", "true"]
    assert records.dropped["reason"].to_list() == ["not_json", "not_an_object"]
    assert records.dropped["where"][0] == "t.jsonl, line 3"


@pytest.mark.parametrize(
    ("raw", "words", "hint"),
    [
        (b"txt,label\nx,a\n", "no column 'text'", "'txt'"),
        (b"text,label\nx,a\n", "no column 'image'", "image: ''"),
        (b"", "is empty", "first line"),
        (b"text,text,label\n", "column twice", "once"),
        (b'text,image,label\n"open,,a\nx,,b\n', "cannot be read", "doubled"),
        ("text,image,label\nx,,a\n".encode("utf-16"), "UTF-16", "UTF-8"),
        (b"text,image,label\n\xff,,a\n\xfe,,b\nfine,,a\n", "2 of 3 rows cannot be read", "UTF-8"),
    ],
)
def test_table_wrong_input(tmp_path: Path, raw: bytes, words: str, hint: str) -> None:
    (tmp_path / "t.csv").write_bytes(raw)
    with pytest.raises(UserError, match=words) as failure:
        table.read(tmp_path, dataset("table", table="t.csv"))
    assert "t.csv" in failure.value.where
    assert hint in failure.value.fix


def test_table_wrong_file(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("text,label\n")
    for name, words in {"post.csv": "posts.csv", "posts.xlsx": "ending", "../t.csv": "leaves the raw folder", "/t.csv": "leaves"}.items():
        with pytest.raises(UserError, match=words):
            table.read(tmp_path, dataset("table", table=name))
    (tmp_path / "t.parquet").write_bytes(b"PAR?")
    with pytest.raises(UserError, match="not a readable Parquet"):
        table.read(tmp_path, dataset("table", table="t.parquet"))


def test_planted(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing"):
        planted.read(tmp_path, dataset("planted"))
    posts = {"id": ["1"], "split": ["train"], "text": ["x"], "image": ["images/1.png"], "label": [1]}
    frame = pl.DataFrame(posts).with_columns(pl.lit(None, dtype=kind).alias(name) for name, kind in TRUTH.items() if name != "id")
    frame.write_parquet(tmp_path / "posts.parquet")
    records = planted.read(tmp_path, dataset("planted"))
    assert records.frame["label"].to_list() == ["b"]
    assert records.truth is not None
    assert records.truth.schema == TRUTH
    frame.drop("cue_text").write_parquet(tmp_path / "posts.parquet")
    with pytest.raises(UserError, match="cue_text"):
        planted.read(tmp_path, dataset("planted"))


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=30))
def test_clean_text_can_be_stored(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.encode() is not None
    assert "\0" not in cleaned
    assert clean(cleaned) == cleaned


@pytest.mark.slow
def test_mvsa_real(shared: Path) -> None:
    encodings = Counter(mvsa.decode(path.read_bytes())[1] for path in (shared / "data/mvsa_single/data").glob("*.txt"))
    assert encodings["cp1252"] + encodings["latin-1"] == 1131
    records = mvsa.read(shared / "data/mvsa_single", dataset("mvsa", variant="single", classes=POLARITY))
    assert Counter(records.frame["label"]) == {"positive": 2683, "negative": 1358, "neutral": 470}
    assert records.notes["split_label_mismatch"] == 0


@pytest.mark.parametrize(("variant", "sarcastic"), [("mmsd", (8642, 959, 959)), ("mmsd2", (9576, 1042, 1037))])
def test_mmsd_real(shared: Path, variant: str, sarcastic: tuple[int, int, int]) -> None:
    settings = dataset("mmsd", variant=variant, classes=("literal", "sarcastic"), positive="sarcastic")
    frame = mmsd.read(shared / "data", settings).frame
    assert tuple(frame.filter(split=split, label="sarcastic").height for split in ("train", "valid", "id")) == sarcastic
    ood = frame.filter(split="ood").join(frame.select(pl.col("id").alias("pair"), pl.col("label").alias("before")), on="pair")
    assert ood.height == 400
    if variant == "mmsd":
        assert ood.filter(pl.col("label") != pl.col("before")).height == 395
        assert mmsd.rewrites(shared / "data", settings).height == 19635
