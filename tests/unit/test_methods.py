"""Every method on simulated features: what it learns, what it refuses, what each setting changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.unit.short_training import posts, shape, small, trained

from causalroute import methods
from causalroute.config import Train
from causalroute.errors import UserError
from causalroute.methods.bag_of_words import TERM
from causalroute.methods.base import Posts
from causalroute.rng import torch_generator
from causalroute.training import loop
from causalroute.training.job import build

__all__ = ["posts"]
SWAP = ("text_swap", "image_swap", "double_swap", "oracle_swap")
EDITORS = {"causal_moe": "dataset", "oracle_swap": "truth", "text_swap": "dataset", "image_swap": "dataset", "double_swap": "dataset"}
EDITORS |= {"subtraction": "dataset", "supcon": "dataset", "counterfactual_augmentation": "dataset", "zero_shot_debiased": "dataset", "lora_moe": "dataset"}
EDITORS |= {"token_moe": "dataset"}


def swapped_accuracy(method: methods.base.Method, posts: Posts, text: str, image: str) -> float:
    """Accuracy on validation items whose chosen contexts speak for the other class."""
    rows = posts.valid[(posts.text_ok & posts.image_ok)[posts.valid]]
    with torch.no_grad():
        return (method.answer(posts.inputs(rows, text, image)).p.argmax(1) == posts.labels[rows]).float().mean().item()


def test_the_registry_lists_the_files_and_what_they_need():
    assert {"majority", "bag_of_words", "text_only", "image_only", "erm", "group_dro", "cf_vqa", "causal_moe", "oracle_erm", *SWAP} <= set(methods.names())
    assert not {"base", "swapping"} & set(methods.names())
    for name in methods.names():
        module = methods.load(name)
        assert EDITORS.get(name) == module.EDITOR
        assert dataclasses.is_dataclass(module.Settings)
        assert module.__doc__
    assert methods.editor_of("erm", "mine") is None
    assert methods.editor_of("double_swap", "mine") == "mine"
    assert methods.editor_of("oracle_swap", "mine") == "truth"


def test_unknown_names_and_settings_are_told():
    with pytest.raises(UserError, match="did you mean 'double_swap'"):
        methods.load("doubleswap")
    with pytest.raises(UserError, match="did you mean 'threshold'"):
        methods.settings_of("causal_moe", {"treshold": 1.0})
    with pytest.raises(UserError, match="exceeds the 4 experts"):
        methods.settings_of("causal_moe", {"top_k": 5})
    with pytest.raises(UserError, match=r"methods\.erm"):
        methods.settings_of("erm", {"hidden": 3})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["erm", "text_only", "image_only", "group_dro", "cf_vqa", "causal_moe", "double_swap"])
def test_answers_are_probabilities_and_training_repeats_to_the_bit(name, posts):
    first, history = trained(name, posts["biased"], epochs=6)
    second, again = trained(name, posts["biased"], epochs=6)
    assert history == again
    state = first.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in second.state_dict().items())
    with torch.no_grad():
        p = first.answer(posts["biased"].inputs(posts["biased"].valid)).p
    torch.testing.assert_close(p.sum(1), torch.ones(len(p)))
    assert history[-1]["valid/factual"] > 0.55


def test_inputs_are_the_views_that_were_asked_for(posts):
    data, rows = posts["biased"], torch.tensor([5, 2])
    inputs = data.inputs(rows, "t_swap", "v", swap=1)
    assert torch.equal(inputs.t, data.views["t_swap"][rows, 1])
    assert torch.equal(inputs.v, data.views["v"][rows])
    assert torch.equal(inputs.t_s, data.views["t_s"][rows])
    assert inputs.texts == [data.texts[5], data.texts[2]]
    assert posts["oracle"].inputs(torch.tensor([0])).t_s is None
    assert [data.splits[row] for row in data.valid.tolist()] == ["valid"] * 200


def test_selection_looks_at_the_accepted_swaps_of_the_swapped_sides(posts):
    data = posts["biased"]
    names = {name: [check.name for check in build(name, {}, shape(data), 0).checks(data)] for name in ("erm", "text_swap", "image_swap", "double_swap")}
    assert names == {
        "erm": ["factual"],
        "text_swap": ["factual", "text"],
        "image_swap": ["factual", "image"],
        "double_swap": ["factual", "text", "image", "both"],
    }
    both = build("double_swap", {}, shape(data), 0).checks(data)[3]
    assert torch.equal(both.weights, (data.text_ok & data.image_ok)[data.valid].float())
    none = dataclasses.replace(data, text_ok=torch.zeros_like(data.text_ok))
    assert [check.name for check in build("double_swap", {}, shape(data), 0).checks(none)] == ["factual", "image"]


def test_a_method_without_scores_says_so(posts):
    data = posts["biased"]
    with pytest.raises(TypeError, match="defines no scores"):
        methods.base.Method(None, shape(data), torch_generator(0)).answer(data.inputs(data.valid))


def test_unimodal_methods_see_one_side(posts):
    data = posts["biased"]
    inputs = data.inputs(data.valid)
    for name, other in (("text_only", "v"), ("image_only", "t")):
        method, _ = trained(name, data, epochs=1)
        changed = dataclasses.replace(inputs, **{other: torch.zeros_like(getattr(inputs, other))})
        assert torch.equal(method.answer(inputs).p, method.answer(changed).p)
        # the XOR leaves one side nothing but its cue
        assert 0.8 < swapped_accuracy(method, data, "t", "v") < 0.97


@pytest.mark.slow
def test_each_swap_method_withstands_its_own_swaps(posts):
    data, figures = posts["biased"], {}
    for name in ("erm", "text_swap", "image_swap", "double_swap", "causal_moe"):
        method, _ = trained(name, data, epochs=10)
        figures[name] = {
            view: swapped_accuracy(method, data, *names) for view, names in {"t": ("t_swap", "v"), "v": ("t", "v_swap"), "tv": ("t_swap", "v_swap")}.items()
        }
    assert figures["text_swap"]["t"] > figures["erm"]["t"] + 0.05
    assert figures["image_swap"]["v"] > figures["erm"]["v"] + 0.05
    for name in ("double_swap", "causal_moe"):
        assert min(figures[name].values()) > 0.9
        assert figures[name]["tv"] > max(figures[one]["tv"] for one in ("erm", "text_swap", "image_swap")) + 0.1


@pytest.mark.slow
def test_swaps_that_failed_contribute_nothing(posts):
    data = dataclasses.replace(posts["biased"], image_ok=torch.zeros_like(posts["biased"].image_ok))
    views = dict(data.views)
    views["v_swap"] = torch.full(views["v_swap"].shape, 1e4)
    poisoned = dataclasses.replace(data, views=views)
    for name, settings in (("double_swap", {}), ("causal_moe", {"context_steps": 20})):
        a, b = (trained(name, each, settings, epochs=2)[0].state_dict() for each in (data, poisoned))
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_group_dro_groups_and_weights(posts):
    data = posts["biased"]
    method, _ = trained("group_dro", data, epochs=2)
    members = method.groups[data.train]
    assert members.min() >= 0
    assert (method.groups[data.valid] == -1).all()
    assert torch.equal(members // 4, data.labels[data.train])
    assert (members % 4 == 3).float().mean().item() == pytest.approx(0.81, abs=0.08)  # both cues agree
    assert method.weights.sum().item() == pytest.approx(1.0, abs=1e-5)
    # posts with one lying cue lose more than those that both cues serve
    assert method.weights[1:3].min() > method.weights[3]


def test_cf_vqa_subtracts_the_text_branch(posts):
    data = posts["biased"]
    inputs = data.inputs(data.valid)
    both, _ = trained("cf_vqa", data, {"subtract": "both"}, epochs=2)
    method, _ = trained("cf_vqa", data, epochs=2)
    z_k, z_t, z_v = method.branches(inputs, None)
    c = method.constant
    expected = (torch.sigmoid(z_k + z_t + z_v).log() - torch.sigmoid(z_t + 2 * c).log()).softmax(1)
    torch.testing.assert_close(method.answer(inputs).p, expected)
    assert c.abs() > 0
    assert not torch.equal(both.answer(inputs).p, method.answer(inputs).p)


def test_methods_without_seed(posts):
    data = posts["biased"]
    majority = build("majority", {}, shape(data), 0)
    majority.prepare(data, torch_generator(0))
    p = majority.answer(data.inputs(data.valid)).p
    assert torch.equal(p[0], p[-1])
    assert p[0].argmax() == torch.bincount(data.labels[data.train]).argmax()
    words = build("bag_of_words", {}, shape(data), 0)
    words.prepare(data, torch_generator(0))
    answer = words.answer(data.inputs(data.valid)).p
    assert (answer.argmax(1) == data.labels[data.valid]).float().mean() > 0.8  # the hashtag
    again = build("bag_of_words", {}, shape(data), 0)
    again.restore(dict(words.state_dict()), json.loads(json.dumps(words.extra())))
    assert torch.equal(again.answer(data.inputs(data.valid)).p, answer)


def test_bag_of_words_agrees_with_the_library(posts):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    data = posts["biased"]
    words = build("bag_of_words", {"c": [1.0], "min_count": 1}, shape(data), 0)
    words.prepare(data, torch_generator(0))
    texts = [data.texts[row] for row in data.train.tolist()]
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=TERM), LogisticRegression(C=1.0, max_iter=1000))
    expected = pipeline.fit(texts, data.labels[data.train].numpy()).predict_proba(data.inputs(data.valid).texts)
    torch.testing.assert_close(words.answer(data.inputs(data.valid)).p.double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("change", [{"ramp_start": 0.4}, {"ramp_end": 0.9}])
def test_every_setting_of_the_swap_methods_changes_the_result(change, posts):
    data = small(posts["biased"])
    a, b = (trained("double_swap", data, settings)[1] for settings in ({}, change))
    assert a != b


def test_oracle_learns_where_no_shortcut_is(posts):
    assert methods.load("oracle_erm").Method.split_roles["train"] == "oracle_train"
    method, history = trained("oracle_erm", posts["oracle"], epochs=10)
    assert history[-1]["valid/factual"] > 0.85
    assert isinstance(method, methods.load("erm").Method)


def test_the_example_in_the_documentation_is_a_method(posts):
    from tests.conftest import ROOT

    text = (Path(ROOT) / "docs" / "methods.md").read_text(encoding="utf-8")
    code = text.split("```python\n")[1].split("```")[0]
    space: dict[str, Any] = {"__name__": __name__}
    exec(compile(code, "docs/methods.md", "exec"), space)
    data = small(posts["biased"])
    method = space["Method"](space["Settings"](), shape(data), torch_generator(0))
    state = loop.start(method, data, "example", 0, Train(epochs=2))
    loop.advance(state, data, Train(epochs=2), 0, save=lambda s: None, watch=lambda row: None)
    assert state.history[1]["train/loss"] < state.history[0]["train/loss"]


def test_a_mark_alone_is_a_term() -> None:
    from sklearn.feature_extraction.text import CountVectorizer

    terms = CountVectorizer(token_pattern=TERM).fit(["so proud # blessed", "#joy !!", "a b 7"])
    assert {"#", "!!", "a", "7", "blessed", "joy"} <= set(terms.get_feature_names_out())
