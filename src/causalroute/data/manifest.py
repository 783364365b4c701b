"""Records -> manifest: every post checked, hashed and assigned to a split; what cannot be used is listed with its reason.

Labels of the test splits (id, ood, neutral, clean) go to test.parquet alone; manifest.parquet and summary.json hold none of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl

from causalroute import layout
from causalroute.config import Dataset, suggest
from causalroute.data import formats, shifts, splits
from causalroute.data.duplicates import Pair, components, exact_pairs, near_images, near_texts, normalise
from causalroute.data.images import Checked, ImageError, check_image
from causalroute.data.records import DROPPED, GROUP, REWRITES, TRUTH, Records
from causalroute.errors import UserError
from causalroute.io import read_json, write_csv, write_json, write_parquet

SPLITS = ("train", "valid", "id", "ood", "neutral", "clean", "oracle_train", "oracle_valid")
TEST = ("id", "ood", "neutral", "clean")
NEEDED = ("train", "valid", "id")
CONTENT = ("id", "split", "text", "image", "attributes", "label", "text_sha256", "image_sha256", "pair")
OVERLAY = "overlay"  # which mark is drawn on the image; injected data alone
FATAL = ("unknown_label", "unknown_split", "missing_image", "path_outside_root", "not_an_image", "corrupt_image", "duplicate_id", "no_id")
BATCH = 256  # images in flight
LISTED = 10  # dropped posts that an error shows


def prepare(dataset: Dataset, name: str) -> None:
    """Writes manifest.parquet, test.parquet, truth.parquet, rewrites.parquet, dropped.csv and summary.json of data set `name`.

    Raises:
        UserError: files of the layout are missing, most posts are unusable for one reason, a needed split is empty, or the
            counts are not the declared ones; it names the first dropped posts, and logs/{name}/dropped.csv lists all of them.
    """
    raw = layout.raw(name)
    if not raw.is_dir():
        raise UserError("there are no raw files", where=str(raw), fix="run the fetch stage first (make reproduce does)")
    records = shifts.unshifted(formats.read(raw, dataset), dataset)
    frame, perceptual, dropped = check(records, raw, dataset)
    try:
        stop_if_hopeless(records.frame.height, dropped)
        frame, twins = assign(frame, perceptual, dataset)
        frame, truth, made = shifts.shifted(frame, records.truth, dataset)
        _check_counts(frame, dataset)
    except UserError as error:
        write_csv(layout.dropped_log(name), dropped)
        raise UserError(error.what, where=f"{error.where}\n{_listing(dropped, layout.dropped_log(name))}".strip(), fix=error.fix) from None
    layout.dropped_log(name).unlink(missing_ok=True)
    write_csv(layout.dropped(name), dropped)
    order = pl.col("split").replace_strict({split: place for place, split in enumerate(SPLITS)}, return_dtype=pl.Int8)
    frame = frame.with_columns(_pairs(frame)).sort(order, maintain_order=True)
    write_parquet(layout.rewrites(name), _rewrites(raw, dataset))
    write_parquet(layout.truth(name), _truth(truth, frame))
    write_parquet(layout.test_labels(name), frame.filter(pl.col("split").is_in(TEST)).select("id", "split", "label", pl.col(f"^{GROUP}.*$")))
    write_parquet(layout.manifest(name), hide_labels(frame))
    write_json(layout.summary(name), summarise(frame, records, dropped, dataset, twins | made) | {"sources": _sources(name)})


def hide_labels(frame: pl.DataFrame) -> pl.DataFrame:
    """The manifest's columns, labels and groups of test splits null."""
    shown = ~pl.col("split").is_in(TEST)
    secret = ["label", *(column for column in frame.columns if column.startswith(GROUP))]
    overlay = [OVERLAY] if OVERLAY in frame.columns else []
    return frame.with_columns(pl.when(shown).then(pl.col(column)).alias(column) for column in secret).select(*CONTENT, *overlay, *secret[1:])


def check(records: Records, raw: Path, dataset: Dataset) -> tuple[pl.DataFrame, list[int | None], pl.DataFrame]:
    """Leaves out every post that cannot be used.

    Returns:
        The usable posts in source order (label: class index; text_sha256 and image_sha256 added), their perceptual hashes, and all dropped posts.
    """
    frame = records.frame.with_columns(pl.col("text").fill_null(""))
    visual = visual_side(frame)
    shown = {"image": pl.col("image"), "attributes": pl.col("attributes"), "none": pl.lit(None, dtype=pl.String)}[visual]
    dropped = [records.dropped]
    bare = (pl.col("text").str.strip_chars() == "") & (shown.fill_null("") == "")
    frame = _drop(frame, pl.col("id").fill_null("") == "", "no_id", dropped)
    frame = _drop(frame, ~pl.col("id").is_first_distinct(), "duplicate_id", dropped)
    frame = _drop(frame, bare, "no_content", dropped)
    frame = frame.with_columns(pl.col("label").replace(dataset.label_map))
    frame = _drop(frame, ~pl.col("label").is_in(dataset.classes).fill_null(False), "unknown_label", dropped, _label_hint(dataset))
    frame = _drop(frame, pl.col("split").is_not_null() & ~pl.col("split").is_in(SPLITS), "unknown_split", dropped, _split_hint)
    frame, perceptual = _check_images(frame, raw, dropped, perceptual=dataset.format != "planted")
    numbers = {label: index for index, label in enumerate(dataset.classes)}
    hashed = pl.col("text").map_elements(lambda text: hashlib.sha256(text.encode()).hexdigest(), return_dtype=pl.String)
    frame = frame.with_columns(pl.col("label").replace_strict(numbers, return_dtype=pl.Int8), hashed.alias("text_sha256"))
    return frame.drop("where"), perceptual, pl.concat(dropped)


def visual_side(frame: pl.DataFrame) -> str:
    """What the visual side of the posts is: image, attributes (published words and OCR text) or none."""
    for side in ("image", "attributes"):
        if frame[side].is_not_null().any():
            return side
    return "none"


def _drop(frame: pl.DataFrame, bad: pl.Expr, reason: str, dropped: list[pl.DataFrame], hint: Callable[[dict[str, Any]], str] | None = None) -> pl.DataFrame:
    marked = frame.with_columns(bad.alias("bad"))
    out = marked.filter("bad")
    where = [row["where"] + (hint(row) if hint else "") for row in out.iter_rows(named=True)]
    dropped.append(pl.DataFrame({"id": out["id"].fill_null(""), "reason": [reason] * out.height, "where": where}, schema=DROPPED))
    return marked.filter(~pl.col("bad")).drop("bad")


def _label_hint(dataset: Dataset) -> Callable[[dict[str, Any]], str]:
    known = [*dataset.classes, *dataset.label_map]
    return lambda row: f": label {row['label']!r}; {suggest(row['label'] or '', known)}"


def _split_hint(row: dict[str, Any]) -> str:
    return f": split {row['split']!r}; {suggest(row['split'], SPLITS)}"


def _check_images(frame: pl.DataFrame, raw: Path, dropped: list[pl.DataFrame], *, perceptual: bool) -> tuple[pl.DataFrame, list[int | None]]:
    """Decodes each image once, several at a time; only hashes are kept."""

    def inspect(relative: str | None) -> Checked | ImageError | None:
        try:
            return check_image(raw, relative, perceptual=perceptual) if relative is not None else None
        except ImageError as error:
            return error

    results: list[Checked | ImageError | None] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for batch in frame.select("image").iter_slices(BATCH):
            results += pool.map(inspect, batch["image"])
    failed = [
        (row["id"], result.reason, f"{row['where']}: {row['image']}")
        for row, result in zip(frame.iter_rows(named=True), results, strict=True)
        if isinstance(result, ImageError)
    ]
    dropped.append(pl.DataFrame(failed, schema=DROPPED, orient="row"))
    sound = [result for result in results if not isinstance(result, ImageError)]
    frame = frame.filter(pl.Series([not isinstance(result, ImageError) for result in results], dtype=pl.Boolean))
    hashes = pl.Series("image_sha256", [result.sha256 if result else None for result in sound], dtype=pl.String)
    return frame.with_columns(hashes), [result.perceptual if result else None for result in sound]


def _listing(dropped: pl.DataFrame, path: Path) -> str:
    """How many posts were dropped for which reason, and the first of them."""
    if not dropped.height:
        return "  dropped: none"
    reasons = ", ".join(f"{count} {reason}" for reason, count in dropped["reason"].value_counts().sort("count", "reason", descending=[True, False]).iter_rows())
    first = [f"    {row['reason']}: {row['where']}" for row in dropped.head(LISTED).iter_rows(named=True)]
    rest = [f"    ... and {dropped.height - LISTED} more"] if dropped.height > LISTED else []
    return "\n".join([f"  dropped: {reasons}; all listed in {path}", *first, *rest])


def stop_if_hopeless(total: int, dropped: pl.DataFrame) -> None:
    """Raises a UserError where most of `total` posts were dropped for one reason that a user can mend."""
    for reason in FATAL:
        rows = dropped.filter(pl.col("reason") == reason)
        if 2 * rows.height > total:
            fix = {
                "unknown_label": "correct `classes` or add a `label_map`",
                "duplicate_id": "set columns.id to a unique column",
                "missing_image": "check the image paths and that the images were fetched",
            }
            what = f"{rows.height} of {total} posts are unusable for one reason: {reason}"
            raise UserError(what, where=f"first: {rows['where'][0]}", fix=fix.get(reason, "correct the data set's entry in params.yaml, or the data"))


def assign(frame: pl.DataFrame, perceptual: list[int | None], dataset: Dataset) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Splits the posts where they are not published split, and counts duplicates and leaks.

    Returns:
        The frame with `split` filled, and the keys published_split, leaks, leaked, duplicates, near_search of the summary.
    """
    search = dataset.format != "planted"
    links = find_twins(frame, perceptual, search=search)
    published = frame.height > 0 and bool(frame["split"].is_not_null().all())
    groups = components(frame.height, [pair for pairs in links.values() for pair in pairs or ()])
    if not published:
        made = splits.make_splits(frame["id"].to_list(), frame["label"].to_list(), groups, dataset.splits)
        frame = frame.with_columns(pl.Series("split", made, dtype=pl.String))
    sizes = pl.Series(groups).value_counts()["count"].to_list()
    return frame, {
        "published_split": published,
        **count_leaks(frame, links),
        "duplicates": {key: None if pairs is None else len(pairs) for key, pairs in links.items()} | {"largest_group": max(sizes, default=0)},
        "near_search": "done" if search else "left out: the sentences are made from templates and recur by design",
    }


def find_twins(frame: pl.DataFrame, perceptual: list[int | None], *, search: bool) -> dict[str, list[Pair] | None]:
    """Pairs of twins of each kind; null: not looked for."""
    texts = [normalise(text) for text in frame["text"]]
    images = visual_side(frame) == "image"
    return {
        "exact_text": list(exact_pairs(texts)),
        "near_text": near_texts(texts) if search else None,
        "exact_image": list(exact_pairs(frame["image_sha256"].to_list())) if images else None,
        "near_image": near_images(perceptual) if images and search else None,
    }


def count_leaks(frame: pl.DataFrame, links: dict[str, list[Pair] | None]) -> dict[str, Any]:
    """Test (id) posts with a twin in train or valid (`<kind>`) and in train alone (`<kind>_train`).

    Beside them: train or valid posts whose exact twin there has another label (`conflicts_<side>`).
    """
    names, labels, ids = frame["split"].to_list(), frame["label"].to_list(), frame["id"].to_list()
    leaks: dict[str, int | None] = {}
    leaked: dict[str, list[str]] = {}
    for side in ("text", "image"):
        exact, near = links[f"exact_{side}"], links[f"near_{side}"]
        for suffix, learned in {"": ("train", "valid"), "_train": ("train",)}.items():
            for kind, known, found in zip(("exact", "near"), (exact, near), splits.leaking(names, exact or [], near or [], learned), strict=True):
                leaks[f"{kind}_{side}{suffix}"] = None if known is None else len(found)
                if not suffix and known is not None:
                    leaked[f"{kind}_{side}"] = sorted(ids[item] for item in found)
        leaks[f"conflicts_{side}"] = None if exact is None else splits.conflicts(names, labels, exact)
    return {"leaks": leaks, "leaked": leaked}


def _check_counts(frame: pl.DataFrame, dataset: Dataset) -> None:
    counts = dict(frame["split"].value_counts().iter_rows())
    where = "usable posts: " + ", ".join(f"{counts.get(split, 0)} {split}" for split in SPLITS if split in counts or split in NEEDED)
    for split in NEEDED:
        if not counts.get(split):
            fix = "give it posts, or leave columns.split empty so that splits are made (they need ten posts or so of each class)"
            raise UserError(f"the split {split!r} is empty", where=where, fix=fix)
    found = sorted(set(frame.filter(pl.col("split").is_in(["train", "valid"]))["label"].to_list()))
    if len(found) < 2:
        what = f"the posts of train and valid belong to fewer than two classes: {[dataset.classes[label] for label in found]}"
        raise UserError(what, where=where, fix="check the label column and `label_map`; there is nothing to tell apart")
    wrong = [f"{split}: {counts.get(split, 0)} instead of {count}" for split, count in dataset.expected.items() if counts.get(split, 0) != count]
    if wrong:
        raise UserError(
            f"not the declared number of usable posts: {'; '.join(wrong)}",
            where=where,
            fix="fetch the data again, or correct `expected` in params.yaml if this is another edition of it",
        )


def _pairs(frame: pl.DataFrame) -> pl.Expr:
    """`pair`, null where the original is not among the usable posts."""
    return pl.when(pl.col("pair").is_in(frame["id"].implode())).then(pl.col("pair")).alias("pair")


def _truth(truth: pl.DataFrame | None, frame: pl.DataFrame) -> pl.DataFrame:
    if truth is None:
        return pl.DataFrame(schema=TRUTH)
    return frame.select("id").join(truth, on="id", how="inner", maintain_order="left")


def _rewrites(raw: Path, dataset: Dataset) -> pl.DataFrame:
    if dataset.format != "mmsd" or dataset.inject is not None:  # a rewrite bears no injected cue and would be told by that
        return pl.DataFrame(schema=REWRITES)
    from causalroute.data.formats.mmsd import rewrites

    return rewrites(raw, dataset)


def _sources(name: str) -> list[dict[str, Any]]:
    path = layout.source(name)
    sources: list[dict[str, Any]] = read_json(path)["sources"] if path.is_file() else []
    return sources


def summarise(frame: pl.DataFrame, records: Records, dropped: pl.DataFrame, dataset: Dataset, twins: dict[str, Any]) -> dict[str, Any]:
    """The content of summary.json but for `sources`; labels of test splits are not counted."""
    counts: dict[str, Any] = {}
    for split in SPLITS:
        part = frame.filter(pl.col("split") == split)
        if part.height:
            counts[split] = {"items": part.height}
        if part.height and split not in TEST:
            counts[split]["labels"] = {label: int((part["label"] == index).sum()) for index, label in enumerate(dataset.classes)}
    reasons = dict(sorted(dropped["reason"].value_counts().iter_rows()))
    visual = visual_side(frame)
    return {
        "classes": list(dataset.classes),
        "task": dataset.task,
        "positive": dataset.positive,
        "visual": visual,
        "without_image": int(frame["image"].null_count()) if visual == "image" else 0,
        "splits": counts,
        "dropped": reasons,
        "notes": records.notes,
    } | twins
