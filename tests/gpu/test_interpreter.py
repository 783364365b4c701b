"""The checks of this folder, small, in Triton's interpreter: what they assert is true of the kernels' logic wherever they run."""

from __future__ import annotations

import pytest
import torch

from tests.gpu import device_cases as cases

pytest.importorskip("triton", reason="the kernels need the package triton")
launch = pytest.importorskip("causalroute.routing.kernels.launch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not launch.INTERPRETED, reason="on a GPU the full sizes run"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "SORT_BLOCK", 16)


@pytest.mark.parametrize("by_token", [False, True])
def test_a_step_is_that_of_the_reference_and_agrees_with_itself(by_token: bool) -> None:
    given = cases.arguments(13, 5, 20, 18, torch.float32, "cpu", by_token=by_token)
    for ours, expected in zip(cases.mixture(*given), cases.mixture(*given, backend="reference"), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    cases.assert_runs_agree(2, given)
    cases.assert_strides_do_not_matter(given)


def test_the_product_in_float64() -> None:
    cases.assert_product_of_float64(11, 20, 18, "cpu")


def test_what_goes_far_on_a_device() -> None:
    cases.assert_far_mask(9, 8, "cpu")
    cases.assert_far_moves(21, 6, "cpu")
    cases.assert_far_permutation(40, 4, "cpu")
