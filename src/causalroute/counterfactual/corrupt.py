"""Errors put into the swaps of any editor, at known rates: how good do counterfactuals have to be?

    u ~ U(0, 1)              one draw for each post and side, from a substream of the seed, the side and the post's id
    u < destroy              destroyed: the cue is swapped as the editor has it, and the core is that of a random train post of any class
    u >= 1 - fail            failed: the swap is the post itself, its cue with it
    otherwise                as the editor made it

Errors are silent, as an editor's own would be: the post keeps its `*_ok`, and what is context and what is core (`*_s`, `*_c`, spans, mask) stays. A destroyed
core says nothing about the post's label; with two polarities every second one happens to be the same. The core of a text are the words that the editor
left unmarked: the lender's fill their places in order, begin anew where it has fewer and are cut where it has more. Posts that the editor cannot swap
are left alone. A higher rate hits the posts of a lower one and more, with the same lenders, so that a curve over rates is not blurred by new draws.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute.config import Corrupt
from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.text.found import Marks, Side
from causalroute.counterfactual.text.swap import INLINE, Swapped, context_of, swap
from causalroute.rng import generator

ERRORS: dict[str, pl.DataType | type[pl.DataType]] = {"text_error": pl.String, "image_error": pl.String, "v_core": pl.List(pl.String)}
"""Columns that corrupted editors alone have: fail, destroy or null; the posts whose cores the image swaps show, null for the post as it is."""


def errors(ids: Sequence[str], usable: Iterable[bool], corrupt: Corrupt, side: Side | str) -> list[str | None]:
    """What happens to each post's swaps on one side: "fail", "destroy" or None."""

    def drawn(name: str) -> str | None:
        u = generator(corrupt.seed, "corrupt", side, name).random()
        return "destroy" if u < corrupt.destroy else "fail" if u >= 1 - corrupt.fail else None

    return [drawn(name) if ok else None for name, ok in zip(ids, usable, strict=True)]


def corrupt_texts(table: pl.DataFrame, posts: Posts, marks: Marks, corrupt: Corrupt, side: Side = "text") -> pl.DataFrame:
    """Puts errors into the text swaps.

    Args:
        table: M rows as of `edit_texts`.
        posts: the M posts.
        marks: what the editor marked.
        corrupt: the rates.
        side: as given to `edit_texts`.

    Returns:
        The table with `t_swap`, `t_donor` and `text_edit_distance` of the posts hit changed, and `text_error`; the table itself at rates of 0.
    """
    if not (corrupt.fail or corrupt.destroy):
        return table
    hit = errors(posts.ids, table["text_ok"], corrupt, side)
    swaps, donors, distances = (table[name].to_list() for name in ("t_swap", "t_donor", "text_edit_distance"))
    position = {name: row for row, name in enumerate(posts.ids)}
    for row, error in enumerate(hit):
        if error == "fail":
            swaps[row], donors[row], distances[row] = [posts.texts[row]] * len(swaps[row]), [posts.ids[row]] * len(swaps[row]), 0.0
        elif error == "destroy":
            lenders = _lenders(posts, posts.train, row, len(swaps[row]), corrupt.seed, side)
            made = [_destroyed(posts, marks, row, position[donor], lender, side) for donor, lender in zip(donors[row], lenders, strict=True)]
            swaps[row], distances[row] = [one.text for one in made], float(np.mean([one.edits for one in made])) / max(1, len(posts.tokens[row]))
    columns = {"t_swap": swaps, "t_donor": donors, "text_edit_distance": distances}
    return table.with_columns(*(pl.Series(name, values, table.schema[name]) for name, values in columns.items()), pl.Series("text_error", hit, pl.String))


def _destroyed(posts: Posts, marks: Marks, row: int, donor: int, lender: int, side: Side) -> Swapped:
    """The post with the donor's context and the lender's words; words are dropped where the lender has none."""
    text, tokens = posts.texts[row], posts.tokens[row]
    written: list[str | None] = [text[token.start : token.end] for token in tokens]
    words = [posts.texts[lender][posts.tokens[lender][i].start : posts.tokens[lender][i].end] for i in _words(posts, marks, lender)]
    for place, i in enumerate(_words(posts, marks, row)):
        written[i] = words[place % len(words)] if words else None
    context = context_of(posts.texts[donor], posts.tokens[donor], marks[donor])
    return swap(text, tokens, marks[row], context, INLINE[side], written)


def _words(posts: Posts, marks: Marks, row: int) -> list[int]:
    """Tokens that are words and not context."""
    return [i for i, token in enumerate(posts.tokens[row]) if token.kind == "word" and not marks[row][i]]


def _lenders(posts: Posts, usable: NDArray[np.bool_], row: int, count: int, seed: int, side: str) -> list[int]:
    """Random other posts that are usable, one for each swap."""
    rows = np.flatnonzero(usable)
    rows = rows[rows != row]
    return rows[generator(seed, "corrupt core", side, posts.ids[row]).integers(0, len(rows), count)].tolist()


def corrupt_images(table: pl.DataFrame, posts: Posts, corrupt: Corrupt) -> pl.DataFrame:
    """Puts errors into the image swaps.

    Args:
        table: M rows as of `edit_images`.
        posts: the M posts, all with an image.
        corrupt: the rates.

    Returns:
        The table with `image_error` and `v_core`, and `v_donor` of failed posts their own id; the table itself at rates of 0.
    """
    if not (corrupt.fail or corrupt.destroy):
        return table
    hit, donors = errors(posts.ids, table["image_ok"], corrupt, "image"), table["v_donor"].to_list()
    found = table["image_ok"].to_numpy() & posts.train
    cores: list[list[str | None]] = []
    for row, (name, error) in enumerate(zip(posts.ids, hit, strict=True)):
        count = len(donors[row])
        if error == "destroy":
            cores.append([posts.ids[lender] for lender in _lenders(posts, found, row, count, corrupt.seed, "image")])
            continue
        cores.append([None if error else name] * count)
        donors[row] = [name] * count if error else donors[row]
    return table.with_columns(
        pl.Series("v_donor", donors, table.schema["v_donor"]), pl.Series("image_error", hit, pl.String), pl.Series("v_core", cores, ERRORS["v_core"])
    )
