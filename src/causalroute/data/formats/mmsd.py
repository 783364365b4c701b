"""MMSD (Cai et al., ACL 2019) and MMSD2.0 (Qin et al., Findings of ACL 2023), with OOD-400 and rewrites of DMSD-CL (Jia et al., AAAI 2024).

Visual side: mmsd/dataset_image/<id>.jpg where that folder exists; else the published attribute words and OCR text of each photo, called
"attributes" everywhere. Texts stay as published (lower case, tokenised, `<user>`, `emoji_12`, spaces at the end).
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from causalroute.config import Dataset
from causalroute.data.records import REWRITES, Records, clean, dropped_of, frame_of, needed, read_json_file
from causalroute.errors import UserError

FOLDERS = {"mmsd": "mmsd/text_json_clean", "mmsd2": "mmsd2/text_json_final"}
SPLITS = {"train": "train", "valid": "valid", "test": "id"}
IMAGES = ("mmsd/dataset_image", "mmsd2/dataset_image", "dataset_image")
REWRITE = re.compile(r"^\[(\d+),(.*),(\d)\]$")
Dropped = list[tuple[str, str, str]]


def read(root: Path, dataset: Dataset) -> Records:
    """Reads the published splits, OOD-400 where present (split ood, `pair` = the test post it rewrites), and the visual side.

    Raises:
        UserError: unknown variant, two classes not declared, or files of the layout missing or damaged.
    """
    if dataset.variant not in FOLDERS:
        raise UserError(f"variant {dataset.variant!r} of format mmsd is unknown", where="params.yaml", fix="use `variant: mmsd` or `variant: mmsd2`")
    names = _names(dataset)
    dropped: Dropped = []
    rows: list[dict[str, Any]] = []
    for file, split in SPLITS.items():
        rows += _rows(root / FOLDERS[dataset.variant] / f"{file}.json", split, names, dropped)
    tests = {row["id"] for row in rows if row["split"] == "id"}
    rows += _ood(root / "dmsd_cl" / "ood_all.txt", names, tests, dropped)
    notes = _add_visual(root, rows, dropped)
    return Records(frame_of(rows), dropped_of(dropped), notes=notes)


def rewrites(root: Path, dataset: Dataset) -> pl.DataFrame:
    """The rewritten train captions of DMSD-CL: columns id (of the train post), text, label (class index, flipped); no rows without the file."""
    path = root / "dmsd_cl" / "opposite.txt"
    names = _names(dataset)
    rows = [(row["id"], row["text"], dataset.classes.index(row["label"])) for row in _rewritten(path, names, [])] if path.is_file() else []
    return pl.DataFrame(rows, schema=REWRITES, orient="row")


def _names(dataset: Dataset) -> tuple[str, str]:
    """Class names of the published labels 0 and 1 (1: sarcastic)."""
    if len(dataset.classes) != 2:
        raise UserError(f"MMSD has two classes, {len(dataset.classes)} are declared", where="params.yaml: classes", fix="classes: [literal, sarcastic]")
    positive = dataset.positive or dataset.classes[1]
    return next(name for name in dataset.classes if name != positive), positive


def _rows(path: Path, split: str, names: tuple[str, str], dropped: Dropped) -> list[dict[str, Any]]:
    table = read_json_file(path, f"the {split} posts")
    if not isinstance(table, list):
        raise UserError("the file is not a JSON list of posts", where=str(path), fix="fetch the file again")
    rows = []
    for number, post in enumerate(table, start=1):
        where = f"{path.name}, post {number}"
        if not (isinstance(post, dict) and str(post.get("image_id", "")).isdigit() and isinstance(post.get("text"), str) and post.get("label") in (0, 1)):
            dropped.append((str(post.get("image_id", "")) if isinstance(post, dict) else "", "bad_post", where))
            continue
        rows.append({"id": str(post["image_id"]), "split": split, "text": clean(post["text"]), "label": names[int(post["label"])], "where": where})
    return rows


def _rewritten(path: Path, names: tuple[str, str], dropped: Dropped) -> list[dict[str, Any]]:
    """Lines `[id,text,label]`, the text unquoted."""
    rows = []
    for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").split("\n"), start=1):
        found = REWRITE.match(line.strip())
        if found and int(found[3]) < 2:
            rows.append({"id": found[1], "text": clean(found[2]), "label": names[int(found[3])], "where": f"{path.name}, line {number}"})
        elif line.strip():
            dropped.append(("", "bad_line", f"{path.name}, line {number}"))
    return rows


def _ood(path: Path, names: tuple[str, str], tests: set[str], dropped: Dropped) -> list[dict[str, Any]]:
    rows = []
    for row in _rewritten(path, names, dropped) if path.is_file() else []:
        if row["id"] in tests:
            rows.append(row | {"id": f"{row['id']}-ood", "split": "ood", "pair": row["id"]})
        else:
            dropped.append((f"{row['id']}-ood", "rewrites_no_test_post", row["where"]))
    return rows


def _add_visual(root: Path, rows: list[dict[str, Any]], dropped: Dropped) -> dict[str, int]:
    """Fills `image`, or else `attributes`, of each row in place; returns what was counted."""
    folder = next((folder for folder in IMAGES if any((root / folder).glob("*.jpg"))), None)
    if folder is not None:
        for row in rows:
            row["image"] = f"{folder}/{row['id'].removesuffix('-ood')}.jpg"
        return {}
    words = _attribute_words(root / "mmsd" / "extract_all", dropped)
    ocr = _ocr(root / "dmsd_cl" / "clean_image_text.txt")
    notes: Counter[str] = Counter()
    for row in rows:
        key = row["id"].removesuffix("-ood")
        row["attributes"] = " ".join(part for part in (words.get(key, ""), ocr.get(key, "")) if part)
        notes["without_attribute_words"] += key not in words
        notes["without_ocr"] += not ocr.get(key)
    return dict(notes)


def _attribute_words(path: Path, dropped: Dropped) -> dict[str, str]:
    """Attribute words by image id; each line is a Python list of strings, read as a literal (never run)."""
    needed(path, "neither images (mmsd/dataset_image/<id>.jpg) nor attribute words are there: the attribute file")
    words = {}
    for number, line in enumerate(path.read_bytes().decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry: list[str] = ast.literal_eval(line.strip()) if len(line) < 10_000 else []
            words[str(entry[0])] = clean(" ".join(map(str, entry[1:])))
        except (ValueError, SyntaxError, TypeError, KeyError, IndexError, MemoryError, RecursionError):
            dropped.append(("", "bad_attribute_line", f"{path.name}, line {number}"))
    return words


def _ocr(path: Path) -> dict[str, str]:
    lines = path.read_bytes().decode("utf-8", "replace").split("\n") if path.is_file() else []
    return {key: clean(text).strip() for key, _, text in (line.partition(" ") for line in lines) if key}
