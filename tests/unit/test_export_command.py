"""`causalroute export --onnx --towers` on a saved model: head and encoder together say what the model says, without torch in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.unit.finished_run import NAME, finish

from causalroute import layout
from causalroute.cli import run
from causalroute.serving.posts import Post
from causalroute.serving.predictor import Predictor

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (pip install 'causalroute[onnx]')")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporters of torch and transformers, which tests/unit/test_onnx.py looks at one by one
def test_files_say_what_the_model_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = finish(tmp_path, methods=["erm"])
    head, towers = tmp_path / "head.onnx", tmp_path / "towers"
    assert run(["export", str(root), "--method", "erm", "--output", str(tmp_path / "model")]) == 0
    assert run(["export", str(tmp_path / "model"), "--onnx", str(head), "--towers", str(towers)]) == 0
    assert capsys.readouterr().out.count("ONNX: ") == 4
    rows = pl.read_parquet(root / layout.manifest(NAME)).filter(split="ood").head(9)
    posts = [Post(text, root / layout.raw(NAME) / image) for text, image in rows.select("text", "image").iter_rows()]
    predictor = Predictor.load(tmp_path / "model")
    predictor.warm()
    encoder = predictor._ready().reads
    t, v = encoder.texts([post.text for post in posts])[0].numpy(), encoder.images([_opened(post) for post in posts]).numpy()
    (p,) = onnxruntime.InferenceSession(head).run(["probabilities"], {"t": t, "v": v})
    wanted = np.array([list(one.probabilities.values()) for one in predictor.predict(posts)])
    np.testing.assert_allclose(p, wanted, atol=1e-4)
    backbone = encoder.backbone
    chosen = backbone.tokenize_many([post.text for post in posts])
    ids, mask = backbone.collate([one for one in chosen if one.bucket == chosen[0].bucket])
    (features,) = onnxruntime.InferenceSession(towers / "text.onnx").run(["features"], {"ids": ids.numpy(), "mask": mask.numpy()})
    rows_of = [row for row, one in enumerate(chosen) if one.bucket == chosen[0].bucket]
    np.testing.assert_allclose(features, t[rows_of], atol=2e-3 * np.abs(t).max())


def _opened(post: Post):
    from causalroute.serving.views import opened

    assert post.image is not None
    return opened(post.image)
