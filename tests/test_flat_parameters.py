import torch
from torch import nn

from reconverge.policy.flat_parameters import FlatParameters


def test_one_vector_is_the_module() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    before = module(torch.ones(1, 3))
    flat = FlatParameters(module)
    assert len(flat) == 3 * 2 + 2 + 2 + 1
    assert torch.equal(module(torch.ones(1, 3)), before)

    flat.values.zero_()
    assert module(torch.ones(1, 3)).item() == 0

    module(torch.ones(1, 3)).sum().backward()
    assert flat.gradient[-1] == 1  # the last bias


def test_gradients_add_up_until_zeroed() -> None:
    module = nn.Linear(2, 1, bias=False)
    flat = FlatParameters(module)
    for _ in range(2):
        module(torch.tensor([[1.0, 2.0]])).sum().backward()
    assert flat.gradient.tolist() == [2, 4]
