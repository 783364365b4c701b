"""Names of the joint features of a backbone that reads a text and an image together: one for each pair of views that something asks for.

Such a backbone (a multimodal LLM) has, beside the features of each side alone, a feature k of the pair: the mediator K of the causal graph.
"""

from __future__ import annotations

FACTUAL_PAIRS = {"k": ("t", "v")}
"""Name -> text view, visual view, of every post."""
EDITED_PAIRS = {
    "k_s": ("t_s", "v_s"),
    "k_c": ("t_c", "v_c"),
    "k_swap_t": ("t_swap", "v"),
    "k_swap_v": ("t", "v_swap"),
    "k_swap_tv": ("t_swap", "v_swap"),
}
"""The same of one editor's views: (M, D) each; (M, K, D) where one side is a swap; (M, K, K, D) with the text's swap first where both are."""
HELD_PAIRS = {
    "k_held_swap_t": ("t_held_swap", "v"),
    "k_held_swap_v": ("t", "v_held_swap"),
    "k_held_swap_tv": ("t_held_swap", "v_held_swap"),
}
"""The same of the editor that is held out of training."""
NAME_OF = {pair: name for name, pair in (FACTUAL_PAIRS | EDITED_PAIRS | HELD_PAIRS).items()}
"""(text view, visual view) -> name."""
NOTHING = "0"
"""Stands for a chat without a post."""


def score_name(view: str) -> str:
    """Under which name log-likelihoods of answers are kept: of a pair k... as z..., of a single view x as z_x."""
    return "z" + view[1:] if view.startswith("k") else f"z_{view}"
