"""Vectors over a network's weights, laid out for a network that knows more tasks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_policy import DA, DO, random_windows, small_policy

from reconverge.policy.config import UnetConfig
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.more_tasks import NEW, grown, laid_out, places_of

SMALL_UNET = {"denoiser": "unet", "unet": UnetConfig(channels=(8, 16), timestep_features=8, kernel=3, groups=4, attention_heads=0)}


def test_a_weight_of_two_columns_in_a_network_of_three() -> None:
    """read (2 x 2) becomes (2 x 3), write (1 x 2) stays."""
    narrow, wide = {"read": (2, 2), "write": (1, 2)}, {"read": (2, 3), "write": (1, 2)}
    places = places_of(narrow, wide)
    assert places.tolist() == [0, 1, NEW, 2, 3, NEW, 4, 5]
    assert laid_out(np.array([1.0, 2, 3, 4, 5, 6]), places).tolist() == [1, 2, 0, 3, 4, 0, 5, 6]
    assert laid_out(np.array([[1.0, 2, 3, 4, 5, 6]] * 2), places).shape == (2, 8)


def test_columns_may_be_new_ahead_of_others() -> None:
    """A label of two tasks ahead of two numbers that tell the time."""
    assert grown(np.array([[1, 2, 8, 9]]), (1, 6), behind=2).tolist() == [[1, 2, 0, 0, 8, 9]]
    assert grown(np.array([[1, 2]]), (3, 2)).tolist() == [[1, 2], [0, 0], [0, 0]]


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)), min_size=1, max_size=4), st.integers(0, 100))
def test_products_of_two_vectors_stay_what_they_were(sizes: list[tuple[int, int, int]], seed: int) -> None:
    """So a penalty, mu^T (theta - theta*), says the same of the wider network. Old numbers keep their order."""
    narrow = {str(number): (rows, columns) for number, (rows, columns, _) in enumerate(sizes)}
    wide = {str(number): (rows, columns + more) for number, (rows, columns, more) in enumerate(sizes)}
    places = places_of(narrow, wide)
    assert [place for place in places if place != NEW] == list(range(sum(rows * columns for rows, columns in narrow.values())))
    one, other = np.random.default_rng(seed).integers(-9, 9, (2, int(places.max()) + 1))
    assert laid_out(one, places) @ laid_out(other, places) == one @ other


@pytest.mark.parametrize("settings", [{}, SMALL_UNET, {"task_conditioned": False}], ids=["residual-mlp", "unet", "not told its task"])
def test_on_the_tasks_that_it_knew_the_wider_policy_computes_what_it_did(settings: dict[str, object]) -> None:
    before, wider = small_policy(("a", "b"), seed=1, **settings), small_policy(("a", "b", "c", "d"), seed=2, **settings)
    narrow, wide = FlatParameters(before.denoiser), FlatParameters(wider.denoiser)
    wide.values.copy_(torch.from_numpy(laid_out(narrow.values.numpy(), places_of(narrow.shapes, wide.shapes))))
    windows = random_windows(8, task=1).all()
    timestep = torch.arange(8)

    def noise(policy: DiffusionPolicy, task: int) -> torch.Tensor:
        told = policy.condition(windows.observations, torch.full((8,), task))
        return policy.predict_noise(windows.actions, timestep, told)

    assert noise(wider, 1).shape == (8, 4, DA) and before.observation_size == DO
    assert torch.allclose(noise(wider, 1), noise(before, 1), atol=1e-6)
    assert torch.equal(noise(wider, 2), noise(wider, 3)), "two new tasks are told by nothing yet"


@pytest.mark.parametrize("settings", [{}, SMALL_UNET], ids=["residual-mlp", "unet"])
def test_no_gradient_of_an_earlier_task_reaches_the_new_columns(settings: dict[str, object]) -> None:
    before, wider = small_policy(("a", "b"), **settings), small_policy(("a", "b", "c"), **settings)
    wide = FlatParameters(wider.denoiser)
    new = torch.from_numpy(places_of(FlatParameters(before.denoiser).shapes, wide.shapes) == NEW)
    windows = random_windows(8, task=1).all()
    predicted = wider.predict_noise(windows.actions, torch.arange(8), wider.condition(windows.observations, windows.task))
    predicted.square().sum().backward()
    assert wide.gradient[new].abs().max() == 0 < wide.gradient[~new].abs().max()
