"""Context tokens and flipped texts as an instruction-tuned language model sees them; what it is asked and what is believed stands in `reply`.

Each distinct text is asked about once, in a first pass that edits and (setting `verify`) a second that checks the edit. A post for which a pass fails has no
edit, with the reason: empty (no token), control_token (holds what the tokenizer reads as a change of role), too_long, the reasons of `reply`. Its text is
left as it is in every view and not swapped. A flip fails alone: not_asked, the reasons of `flip.problem`, no_known_label, wrong_label; the marks stay.
"""

from __future__ import annotations

import numpy as np

from causalroute.config import Editor, Llm
from causalroute.counterfactual.posts import UNKNOWN, Posts
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import flip as flips
from causalroute.counterfactual.text.found import Found, Side
from causalroute.counterfactual.text.generate import Generator, Local, replies
from causalroute.counterfactual.text.reply import Rejected, check_chat, context_of, edit_chat, read, verdict
from causalroute.errors import UserError


def mark(posts: Posts, editor: Editor, sources: Sources, side: Side = "text", generate: Generator | None = None) -> Found:
    """Marks, flips and failures of M posts.

    Args:
        posts: M posts; the labels of train posts only decide which flips are kept, the model never sees one.
        editor: with a section `llm`.
        sources: `cache` is where replies are kept.
        side: flips are asked for texts alone.
        generate: another model than the one that the settings name.

    Raises:
        UserError: the model cannot be had, or the named classes are not those of the posts.
    """
    settings = editor.llm
    if settings is None:
        raise UserError("the text editor 'llm' has no settings", where="editors: llm", fix="add a section llm with a model")
    if settings.classes and len(settings.classes) != posts.classes:
        what = f"the editor names {len(settings.classes)} classes, the posts have {posts.classes}"
        raise UserError(what, where="editors: llm.classes", fix="name the two classes in the order of the data set, or none")
    classes = settings.classes if side == "text" else ()
    return _Session(posts, settings, classes, generate or Local(settings), sources).run()


class _Session:
    """One editing of all posts: marks and flips grow pass by pass, and what fails drops out with its reason."""

    def __init__(self, posts: Posts, settings: Llm, classes: tuple[str, ...], generate: Generator, sources: Sources) -> None:
        self.posts, self.settings, self.classes, self.generate, self.cache = posts, settings, classes, generate, sources.cache
        self.marks = [np.zeros(len(tokens), dtype=bool) for tokens in posts.tokens]
        self.flips: list[str | None] = [None] * len(posts.ids)
        self.failures: dict[int, str] = {}
        self.lost_flips: dict[int, str] = {}

    def run(self) -> Found:
        rows = self._ready()
        texts = self.posts.texts
        self._read(rows, replies([edit_chat(texts[row], self.settings.budget, self.classes) for row in rows], self.generate, self.cache))
        rows = [row for row in rows if row not in self.failures]
        if self.settings.verify:
            chats = [check_chat(texts[row], self.posts.tokens[row], self.marks[row], self.flips[row], self.classes) for row in rows]
            self._verify(rows, replies(chats, self.generate, self.cache))
        return Found(self.marks, self.flips, self.failures, self.lost_flips)

    def _ready(self) -> list[int]:
        """Rows that can be asked about."""
        for row, text in enumerate(self.posts.texts):
            if not self.posts.tokens[row]:
                self.failures[row] = "empty"
            elif any(token in text for token in self.generate.control):
                self.failures[row] = "control_token"
        return [row for row in range(len(self.posts.ids)) if row not in self.failures]

    def _read(self, rows: list[int], found: list[str | None]) -> None:
        """First pass: marks, and flips that could be some."""
        spaced = flips.is_spaced(self.posts)
        for row, reply in zip(rows, found, strict=True):
            text, tokens = self.posts.texts[row], self.posts.tokens[row]
            try:
                value = read(_given(reply))
                self.marks[row] = context_of(text, tokens, value, self.settings.budget)
            except Rejected as error:
                self._drop(row, error.reason)
                continue
            if value.get("flipped") is not None:
                problem = self._flip_problem(row, value["flipped"])
                self.flips[row] = None if problem else flips.styled(value["flipped"], text, spaced)
                self.lost_flips |= {row: problem} if problem else {}

    def _flip_problem(self, row: int, flip: str) -> str:
        if not self.classes:
            return "not_asked"
        if not self.posts.train[row] or self.posts.labels[row] == UNKNOWN:
            return "no_known_label"
        return flips.problem(self.posts.texts[row], flip, self.settings.budget)

    def _verify(self, rows: list[int], found: list[str | None]) -> None:
        """Second pass: what is refused is dropped."""
        for row, reply in zip(rows, found, strict=True):
            flip = self.flips[row]
            wanted = self.classes[1 - self.posts.labels[row]] if flip is not None else ""
            try:
                keep = verdict(_given(reply), flip, wanted)
            except Rejected as error:
                self._drop(row, error.reason)
                continue
            if flip is not None and not keep:
                self.flips[row] = None
                self.lost_flips[row] = "wrong_label"

    def _drop(self, row: int, reason: str) -> None:
        self.failures[row] = reason
        self.marks[row] = np.zeros(len(self.posts.tokens[row]), dtype=bool)
        self.flips[row] = None
        self.lost_flips.pop(row, None)


def _given(reply: str | None) -> str:
    if reply is None:
        raise Rejected("too_long")
    return reply
