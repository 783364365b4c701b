"""Text editors: each module marks the context tokens of posts; `swap` makes the counterfactual texts from the marks."""

from __future__ import annotations

from causalroute.config import Editor
from causalroute.counterfactual.posts import Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import lexicon, random, truth
from causalroute.counterfactual.text.swap import Marks, edit_texts
from causalroute.errors import UserError

__all__ = ["edit_texts", "marks"]


def marks(posts: Posts, editor: Editor, sources: Sources) -> Marks:
    """True for each context token of each post, as the editor's text module finds them.

    Args:
        posts: M posts.
        editor: names the module and its numbers.
        sources: what the module may look at besides the posts.

    Raises:
        UserError: the module needs something that `sources` lacks.
    """
    if editor.text == "lexicon":
        return lexicon.mark(posts, editor.z)
    if editor.text == "random":
        return random.mark(posts, editor.z, editor.seed)
    if sources.truth is None:
        raise UserError("the text editor 'truth' needs known truth", where="editors: text", fix="use 'lexicon' on data without known truth")
    return truth.mark(posts, sources.truth)
