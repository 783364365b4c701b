"""An explanation in plain words: what the contexts speak for, what the gate takes away, what is left, and what the biased model says."""

from __future__ import annotations

from collections.abc import Sequence

from causalroute.serving.posts import Explanation, Post, Prediction, Word

SPEAKS = 0.5
"""Log-odds against the class prior from which a context is said to speak for a class."""
NAMED = 3
"""Context words that are named, at most."""
REMOVED = 0.5
"""Share of the gate from which a side's direct effect counts as removed."""
SIDES = ("text", "image")
Context = tuple[str, str, bool, str]
"""side, its context in words, whether that is a plural, and the class it speaks for"""


def sentence(post: Post, told: Prediction, method: str, reference: str) -> str:
    """One or two sentences; without an explanation there is only the answer.

    Args:
        post: what was asked.
        told: what was answered.
        method: name of the debiased method.
        reference: name of the biased one; empty where there is none.
    """
    why = told.explanation
    contexts = _contexts(post, why) if why else []
    still = "still " if any(context[3] == told.label for context in contexts) else ""
    read = f"the post {still}reads as {told.label} ({percent(told.probabilities[told.label])})"
    if contexts and why:
        first = f"{_lead(contexts)}; {_treatment(contexts, why, method)} {read}."
    elif why and any(name.startswith("NDE") for name in why.effects):
        first = f"No context says much on its own; {read}."
    else:
        first = f"{_upper(read)}."
    return " ".join(filter(None, (first, _biased(told, reference))))


def percent(p: float) -> str:
    """Whole percent; never 100 % for less than that."""
    return "over 99 %" if 0.995 <= p < 1 else f"{100 * p:.0f} %"


def _biased(told: Prediction, reference: str) -> str:
    if told.biased_label is None or told.biased is None:
        return ""
    sure = percent(told.biased[told.biased_label])
    return f"The biased model ({reference}) {'agrees' if told.biased_label == told.label else f'takes it for {told.biased_label}'} ({sure})."


def _contexts(post: Post, why: Explanation) -> list[Context]:
    """Sides whose context alone speaks for a class."""
    found = []
    for side, (name, plural) in zip(SIDES, (_text(post, why), _image(post, why)), strict=True):
        effect = why.effects.get(f"NDE_{side}", {})
        best = max(effect, key=lambda label: effect[label], default="")
        if name and best and effect[best] >= SPEAKS:
            found.append((side, name, plural, best))
    return found


def _text(post: Post, why: Explanation) -> tuple[str, bool]:
    """The text's context in words; empty where there is none."""
    if not why.words:
        return ("the context of the text" if post.text.strip() else ""), False
    return _named([word for word in why.words if word.context])


def _named(words: Sequence[Word]) -> tuple[str, bool]:
    forms = list(dict.fromkeys(word.text for word in words))
    if len(forms) > NAMED or not forms:
        return (f"{len(forms)} words of the context" if forms else ""), True
    if all(form.startswith("#") for form in forms):
        kind, shown = "hashtag", forms
    else:
        kind, shown = "word", [f"“{form}”" for form in forms]
    return f"the {kind}{'s' if len(forms) > 1 else ''} {_joined(shown)}", len(forms) > 1


def _image(post: Post, why: Explanation) -> tuple[str, bool]:
    if post.attributes:
        return "the context of the attribute words", False
    return ("the background" if why.region else "the image's context") if post.image is not None else "", False


def _lead(contexts: Sequence[Context]) -> str:
    """What speaks for what; one verb where both speak for the same."""
    if len({context[3] for context in contexts}) == 1:
        many = len(contexts) > 1 or contexts[0][2]
        return _upper(f"{_joined([context[1] for context in contexts])} {'speak' if many else 'speaks'} for {contexts[0][3]}")
    return _upper(", ".join(f"{name} {'speak' if plural else 'speaks'} for {label}" for _, name, plural, label in contexts))


def _treatment(contexts: Sequence[Context], why: Explanation, method: str) -> str:
    """What became of their direct effects."""
    if not why.gates:
        return f"with {method}"
    both = why.gates.get("both", 0.0)
    removed = [side for side, *_ in contexts if why.gates.get(side, 0.0) + both > REMOVED]
    many = len(contexts) > 1 or contexts[0][2]
    if not removed:
        return f"the gate keeps {'them' if many else 'it'}:"
    if len(removed) == len(contexts):
        return f"with {'their' if many else 'its'} direct effect removed"
    return f"the gate removes the direct effect of the {removed[0]} alone:"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
