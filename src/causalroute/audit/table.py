"""Any table -> posts to audit: columns guessed where they are not named, rows that cannot be used listed with their reason, nothing else dropped.

Labels of test splits are not read; their posts serve the search for twins alone. A post whose image cannot be used keeps its text: whether a post has an
image is a cue of its own.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.audit import images
from causalroute.audit.images import Look, Seen
from causalroute.audit.posts import Posts
from causalroute.audit.search import search
from causalroute.config import Audit, Columns, suggest
from causalroute.data.formats.table import open_table, read_table
from causalroute.data.images import ImageError
from causalroute.data.manifest import SPLITS, TEST, count_leaks, find_twins, stop_if_hopeless
from causalroute.data.records import DROPPED, GROUP, Records
from causalroute.errors import UserError

GUESSES = {
    "text": ("text", "caption", "tweet", "post", "sentence", "content", "message", "comment", "review", "title", "body"),
    "label": ("label", "labels", "class", "target", "sentiment", "mood", "category", "sarcasm", "is_sarcastic", "y"),
    "image": ("image", "image_path", "img", "img_path", "image_file", "file", "filename", "photo", "picture", "path"),
    "split": ("split", "subset", "partition", "set"),
    "id": ("id", "post_id", "tweet_id", "image_id", "uid"),
}
"""Names by which a column is known, the likeliest first."""
MOST_CLASSES = 50
TYPO = 0.02
"""A label this rare (or found once) beside one that is spelt nearly the same is a typing error."""
LIKELY = 10
"""Posts that a label needs to be the right spelling of another one."""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table and what is known of its columns; None: guess, "": there is none."""

    path: Path
    text: str | None = None
    label: str | None = None
    image: str | None = None
    split: str | None = None
    id: str | None = None
    metadata: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    """label names (empty: all that occur)"""
    root: Path | None = None
    """folder that image paths are relative to (None: the table's)"""
    features: Path | None = None
    """safetensors file of image features, one row per row of the table"""


def audit_table(table: Table, settings: Audit) -> tuple[dict[str, Any], pl.DataFrame]:
    """The audit of a table, and the rows and images left out (columns id, reason, where).

    Returns:
        as `search`, and `leaks`, `leaked`, `duplicates`, `dropped` (counts by reason) and `table` (columns, rows, notes).

    Raises:
        UserError: a column is not there or cannot be guessed, most rows or images are unusable, or there are fewer than two classes.
    """
    columns, notes = choose(table)
    records = read_table(table.path, columns)
    frame, classes, dropped = check(records, table.classes)
    stop_if_hopeless(records.frame.height, dropped)
    looks = images.inspect(table.root or table.path.parent, frame["image"].to_list())
    frame, looks, unusable = _look(frame, looks)
    learned = frame["split"].is_in(["train", "valid"])
    posts = _posts(frame.filter(learned), classes, _features(table.features, frame.filter(learned), records))
    found = search(posts, [look for look, one in zip(looks, learned, strict=True) if one], settings)
    lost = pl.concat([dropped, unusable])
    told = {"file": table.path.name, "rows": records.frame.height + records.dropped.height, "used": frame.height, "notes": notes}
    told |= {"columns": {key: getattr(columns, key) for key in GUESSES} | {"metadata": list(columns.groups)}}
    return found | _twins(frame, looks, bool(columns.split)) | {"dropped": dict(sorted(lost["reason"].value_counts().iter_rows())), "table": told}, lost


def choose(table: Table) -> tuple[Columns, list[str]]:
    """The columns to read, and notes on what was guessed.

    Raises:
        UserError: the text or label column is not named and cannot be guessed.
    """
    names, rows = open_table(table.path)
    chosen: dict[str, str] = {}
    notes: list[str] = []
    for key, known in GUESSES.items():
        given = getattr(table, key)
        chosen[key] = guess(names, known, set(chosen.values()) | set(table.metadata)) if given is None else given
        if given is None and chosen[key]:
            notes.append(f"{key} = column {chosen[key]!r} (guessed; --{key} says another)")
        if not chosen[key] and key in ("text", "label"):
            fix = f"name it: --{key} COLUMN; the table has {names}"
            raise UserError(f"no column looks like the {key}", where=str(table.path), fix=fix)
    if table.id is None and chosen["id"]:
        cells = [row.get(chosen["id"]) for _, row in rows if isinstance(row, dict)]
        if len(set(cells)) < len(cells) or None in cells:
            notes[-1] = f"column {chosen['id']!r} repeats or is empty somewhere: rows are named by their number"
            chosen["id"] = ""
    if left := [name for name in names if name not in (*chosen.values(), *table.metadata)]:
        notes.append(f"columns not looked at: {', '.join(left)} (--metadata COLUMN ... tests them)")
    return Columns(**chosen, groups=table.metadata), notes


def guess(names: list[str], known: tuple[str, ...], taken: set[str]) -> str:
    """The column among `names`, none of `taken`, that is called by one of the words `known`, the likeliest first; empty: none."""
    plain = {name.casefold(): name for name in reversed(names) if name not in taken}
    for word in known:
        if word in plain:
            return plain[word]
    parts = {part: name for low, name in plain.items() for part in low.replace("-", "_").split("_") if len(part) > 3}
    return next((parts[word] for word in known[:4] if word in parts), "")


def check(records: Records, classes: tuple[str, ...]) -> tuple[pl.DataFrame, tuple[str, ...], pl.DataFrame]:
    """Leaves out what cannot be used.

    Returns:
        The usable posts (split filled, label a class number, null on test splits; `row` their place in the table), the class names, all dropped rows.

    Raises:
        UserError: too many different labels, or no train split.
    """
    frame = records.frame.with_row_index("row").with_columns(pl.col("split").fill_null("train"))
    dropped = [records.dropped]
    frame = _drop(frame, pl.col("id").fill_null("") == "", "no_id", dropped)
    frame = _drop(frame, ~pl.col("id").is_first_distinct(), "duplicate_id", dropped)
    frame = _drop(frame, (pl.col("text").str.strip_chars() == "") & pl.col("image").is_null(), "no_content", dropped)
    unknown = ~pl.col("split").is_in(SPLITS)
    frame = _drop(frame, unknown, "unknown_split", dropped, lambda row: f": split {row['split']!r}; {suggest(row['split'], SPLITS)}")
    learned = pl.col("split").is_in(["train", "valid"])
    named, typed = _classes(frame.filter(learned)["label"].to_list(), classes)
    frame = _drop(frame, learned & ~pl.col("label").is_in(named).fill_null(False), "unknown_label", dropped, lambda row: _typed(row["label"], typed, named))
    if frame.height and not (frame["split"] == "train").any():
        raise UserError("no post is in the split 'train'", where=f"splits: {sorted(set(frame['split']))}", fix="correct the split column, or --split ''")
    number = {label: index for index, label in enumerate(named)}
    shown = pl.when(~pl.col("split").is_in(TEST)).then(pl.col("label"))
    return frame.with_columns(shown.replace_strict(number, default=None, return_dtype=pl.Int64).alias("label")), named, pl.concat(dropped)


def _classes(labels: list[str | None], wanted: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Class names in order, and what each label that is a typing error probably stands for."""
    counted = Counter(label for label in labels if label)
    if wanted:
        return wanted, {}
    typed = {}
    for label, count in counted.items():
        frequent = [other for other in counted if counted[other] >= LIKELY and count <= max(1, TYPO * counted[other])]
        plain = {other.casefold(): other for other in frequent}
        if close := difflib.get_close_matches(label.casefold(), plain, n=1, cutoff=0.75):
            typed[label] = plain[close[0]]
    named = tuple(sorted(set(counted) - set(typed)))
    if len(named) > MOST_CLASSES:
        what = f"the label column holds {len(named)} different values, such as {named[0]!r} and {named[1]!r}: that is no class"
        raise UserError(what, fix=f"name the right column with --label, or at most {MOST_CLASSES} values with --classes")
    return named, typed


def _typed(label: str | None, typed: dict[str, str], classes: tuple[str, ...]) -> str:
    if not label:
        return ": no label"
    return f": label {label!r}; " + (f"did you mean {typed[label]!r}?" if label in typed else suggest(label, classes))


def _drop(frame: pl.DataFrame, bad: pl.Expr, reason: str, dropped: list[pl.DataFrame], hint: Any = None) -> pl.DataFrame:
    marked = frame.with_columns(bad.fill_null(False).alias("bad"))
    lost = [(row["id"] or "", reason, row["where"] + (hint(row) if hint else "")) for row in marked.filter("bad").iter_rows(named=True)]
    dropped.append(pl.DataFrame(lost, schema=DROPPED, orient="row"))
    return marked.filter(~pl.col("bad")).drop("bad")


def _look(frame: pl.DataFrame, looks: list[Look]) -> tuple[pl.DataFrame, list[Look], pl.DataFrame]:
    """Content hashes of the images; a post with neither text nor a usable image is dropped, an image that cannot be used is listed.

    Raises:
        UserError: most images are unusable for one reason.
    """
    rows = frame.select("id", "where").rows()
    lost = [(*row, look) for row, look in zip(rows, looks, strict=True) if isinstance(look, ImageError)]
    named = frame["image"].is_not_null().sum()
    reason, count = next(iter(Counter(look.reason for _, _, look in lost).most_common(1)), ("", 0))
    if 2 * count > named:
        first = next(look for _, _, look in lost if look.reason == reason)
        fix = f"{first.fix}; --root FOLDER is what image paths are relative to; --image '' leaves images out"
        raise UserError(f"{count} of {named} images cannot be used: {reason}", where=f"first: {first.where}", fix=fix)
    unusable = pl.DataFrame([(name, look.reason, f"{where}: {look.where} (text kept)") for name, where, look in lost], schema=DROPPED, orient="row")
    shas = [look.sha256 if isinstance(look, Seen) else None for look in looks]
    frame = frame.with_columns(pl.Series("image_sha256", shas, dtype=pl.String))
    kept = (frame["text"].str.strip_chars() != "") | frame["image_sha256"].is_not_null()
    bare = frame.filter(~kept)
    gone = pl.DataFrame([(name, "no_content", where) for name, where in bare.select("id", "where").rows()], schema=DROPPED, orient="row")
    return frame.filter(kept), [look for look, one in zip(looks, kept, strict=True) if one], pl.concat([unusable, gone])


def _posts(frame: pl.DataFrame, classes: tuple[str, ...], features: NDArray[np.float64] | None) -> Posts:
    extra = {name.removeprefix(GROUP): frame[name].to_list() for name in frame.columns if name.startswith(GROUP)}
    train = (frame["split"] == "train").to_numpy()
    texts, labels = frame["text"].to_list(), frame["label"].to_numpy().astype(np.int64)
    return Posts(frame["id"].to_list(), texts, labels, classes, train, frame["image"].to_list(), frame["attributes"].to_list(), extra, features)


def _features(path: Path | None, frame: pl.DataFrame, records: Records) -> NDArray[np.float64] | None:
    if path is None:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (OSError, SafetensorError, KeyError) as error:
        raise UserError(f"the feature file cannot be read: {error}", where=str(path), fix="a safetensors file with one row per row of the table") from None
    rows = records.frame.height + records.dropped.height
    fitting = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2 and len(tensor) == rows}
    if not fitting or records.dropped.height:
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        what = f"no tensor has one row for each of the {rows} rows of the table, all of them readable"
        raise UserError(what, where=f"{path}: {shapes}; {records.dropped.height} rows unreadable", fix="encode the rows of this very table, in its order")
    chosen: NDArray[Any] = fitting.get("v", next(iter(fitting.values())))
    return chosen[frame["row"].to_numpy()].astype(np.float64)


def _twins(frame: pl.DataFrame, looks: list[Look], split: bool) -> dict[str, Any]:
    """Exact and near twins; leaks only where the table says which posts are test posts."""
    links = find_twins(frame, [look.perceptual if isinstance(look, Seen) else None for look in looks], search=True)
    counted = count_leaks(frame, links)
    leaks = {key: value for key, value in counted["leaks"].items() if split or key.startswith("conflicts")}
    duplicates = {key: None if pairs is None else len(pairs) for key, pairs in links.items()}
    return {"leaks": leaks, "leaked": counted["leaked"] if split else {}, "duplicates": duplicates}
