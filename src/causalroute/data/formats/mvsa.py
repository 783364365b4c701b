"""MVSA-Single and MVSA-Multiple (Niu et al., MMM 2016) in the publisher's layout.

data/<id>.jpg, data/<id>.txt, labelResultAll.txt with `ID<tab>text,image` (one annotator) or three such pairs (Multiple: majority per modality).
The label of a post is the common label of text and image, or the one that is not neutral; opposite polarities have none (Xu & Mao, CIKM 2017).
splits_clmlf.jsonl (`id`, `split`, `label`; Li et al., 2022), where present, is the published split.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from causalroute.config import Dataset
from causalroute.data.records import Records, clean, dropped_of, frame_of, needed
from causalroute.errors import UserError

ANNOTATORS = {"single": 1, "multiple": 3}
NAMES = ("negative", "neutral", "positive")
SPLITS = {"train": "train", "dev": "valid", "valid": "valid", "test": "id"}
LABELS_FILE, SPLIT_FILE = "labelResultAll.txt", "splits_clmlf.jsonl"


def read(root: Path, dataset: Dataset) -> Records:
    """Reads posts, labels, the three conflict groups and the published split.

    Raises:
        UserError: unknown variant, or files of the layout are missing.
    """
    if dataset.variant not in ANNOTATORS:
        raise UserError(f"variant {dataset.variant!r} of format mvsa is unknown", where="params.yaml", fix="use `variant: single` or `variant: multiple`")
    if not (root / "data").is_dir():
        needed(root / "data" / "1.txt", "the folder data/ with <id>.jpg and <id>.txt")
    split, published = _splits(root / SPLIT_FILE)
    notes: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    dropped: list[tuple[str, str, str]] = []
    seen: set[str] = set()
    for number, line in _lines(root / LABELS_FILE):
        where = f"{LABELS_FILE}, line {number}"
        row = _post(root, line, ANNOTATORS[dataset.variant], notes)
        name = line.split("\t")[0].strip()
        seen.add(name)
        if isinstance(row, str):
            dropped.append((name, row, where))
        elif published and name not in split:
            dropped.append((name, "not_in_published_split", where))
        else:
            rows.append(row | {"split": split.get(name), "where": where})
            notes["split_label_mismatch"] += name in published and published[name] != row["label"]
    dropped += [(name, "no_label_line", f"data/{name}.txt") for name in _unlabelled(root, seen)]
    return Records(frame_of(rows, ["conflict"]), dropped_of(dropped), notes=dict(notes))


def _lines(path: Path) -> list[tuple[int, str]]:
    text = needed(path, "the label file").read_bytes().decode("utf-8-sig", "replace")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    return lines[1:] if lines and lines[0][1].upper().startswith("ID") else lines


def _unlabelled(root: Path, seen: set[str]) -> list[str]:
    names = {path.stem for path in (root / "data").iterdir() if path.suffix == ".txt"} - seen
    return sorted(names, key=lambda name: (len(name), name))


def _splits(path: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Split and label of each id in the published split; both empty without the file."""
    split, label = {}, {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [], start=1):
        try:
            row = json.loads(line)
            split[str(row["id"])], label[str(row["id"])] = SPLITS[row["split"]], row["label"]
        except (ValueError, KeyError, TypeError):
            fix = 'each line is {"id": ..., "split": "train" | "dev" | "test", "label": ...}'
            raise UserError("a line of the published split cannot be read", where=f"{path}, line {number}", fix=fix) from None
    return split, label


def _post(root: Path, line: str, annotators: int, notes: Counter[str]) -> dict[str, Any] | str:
    """A row of the frame, or the reason why there is none."""
    name, *cells = line.split("\t")
    name = name.strip()
    pairs = [tuple(part.strip().lower() for part in cell.split(",")) for cell in cells if cell.strip()]
    if not name.isalnum() or len(pairs) != annotators or any(len(pair) != 2 or not set(pair) <= set(NAMES) for pair in pairs):
        return "bad_label_line"
    text_label, image_label = _majority([pair[0] for pair in pairs]), _majority([pair[1] for pair in pairs])
    if not text_label or not image_label:
        return "no_majority"
    label = combine(text_label, image_label)
    if not label:
        return "opposite_polarity"
    path = root / "data" / f"{name}.txt"
    if not path.is_file():
        return "missing_text"
    text, encoding = decode(path.read_bytes())
    if encoding != "utf-8":
        notes[f"text_{encoding}"] += 1
    return {"id": name, "text": clean(text).strip(), "image": f"data/{name}.jpg", "label": label, "group:conflict": conflict(text_label, image_label)}


def _majority(votes: list[str]) -> str:
    label, count = Counter(votes).most_common(1)[0]
    return label if 2 * count > len(votes) else ""


def combine(text: str, image: str) -> str:
    """The label of a post from those of its text and image; empty for opposite polarities."""
    if text == image or image == "neutral":
        return text
    return image if text == "neutral" else ""


def conflict(text: str, image: str) -> str:
    """Which side carries the label: AGREE, TEXT-NEUTRAL (the image does) or IMAGE-NEUTRAL (the text does)."""
    if text == image:
        return "AGREE"
    return "TEXT-NEUTRAL" if text == "neutral" else "IMAGE-NEUTRAL"


def decode(raw: bytes) -> tuple[str, str]:
    """Text and the encoding that fitted: utf-8, else cp1252, else latin-1, which fits everything."""
    for encoding in ("utf-8", "cp1252"):
        try:
            return raw.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    return raw.decode("latin-1"), "latin-1"
