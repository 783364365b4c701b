"""Text editors: each module marks the context tokens of posts; `swap` makes the counterfactual texts from the marks, `flip` checks rewritten ones.

A new editor is a module with one public function `mark...` and a line in EDITORS.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable

from causalroute.config import Editor
from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import lexicon, random, surface, truth
from causalroute.counterfactual.text.flip import published
from causalroute.counterfactual.text.found import Found, Side
from causalroute.counterfactual.text.swap import edit_texts
from causalroute.errors import UserError

__all__ = ["EDITORS", "edit_texts", "find", "flips"]


def _truth(posts: Posts, editor: Editor, sources: Sources, side: Side) -> Found:
    if sources.truth is None:
        raise UserError("the text editor 'truth' needs known truth", where="editors: text", fix="use 'lexicon' on data without known truth")
    return Found(truth.mark(posts, sources.truth, side))


def _occlusion(posts: Posts, editor: Editor, sources: Sources, side: Side) -> Found:
    from causalroute.counterfactual.text import occlusion

    return Found(occlusion.mark(posts, editor, sources, side))


def _llm(posts: Posts, editor: Editor, sources: Sources, side: Side) -> Found:
    from causalroute.counterfactual.text import llm

    return llm.mark(posts, editor, sources, side)


EDITORS: dict[str, Callable[[Posts, Editor, Sources, Side], Found]] = {
    "lexicon": lambda posts, editor, sources, side: Found(lexicon.mark(posts, editor.z)),
    "surface": lambda posts, editor, sources, side: Found(surface.mark(posts)),
    "random": lambda posts, editor, sources, side: Found(random.mark(posts, editor.z, editor.seed)),
    "occlusion": _occlusion,
    "llm": _llm,
    "truth": _truth,
}
"""Name in the settings -> what the editor finds."""


def find(posts: Posts, editor: Editor, sources: Sources, side: Side = "text") -> Found:
    """What the editor's text module finds in the posts; failures are counted by reason on standard error.

    Args:
        posts: M posts.
        editor: names the module and its numbers.
        sources: what the module may look at besides the posts.
        side: whether the posts' texts are texts or lists of attribute words.

    Raises:
        UserError: the module needs something that `sources` lacks.
    """
    found = EDITORS[editor.text](posts, editor, sources, side)
    for what, failures in (("no edit", found.failures), ("lost their flip", found.lost_flips)):
        if failures:
            reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(failures.values()).most_common())
            print(f"text editor {editor.text!r}: {len(failures)} of {len(posts.ids)} posts: {what} ({reasons})", file=sys.stderr)
    return found


def flips(posts: Posts, found: Found, sources: Sources) -> list[str | None]:
    """Flipped text of each post, None where there is none: published ones first, then the editor's."""
    first = published(posts, sources.rewrites)
    return [one or two for one, two in zip(first, found.flips or [None] * len(first), strict=True)]
