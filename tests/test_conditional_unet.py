"""The U-Net against its published form with all taps, and its split call against the plain one."""

import pytest
import torch
from torch import Tensor, nn

from benchmarks.full_unet import with_all_taps
from reconverge.eval.rollout import SMALLEST_BATCH
from reconverge.policy import conditional_unet
from reconverge.policy.conditional_unet import ConditionalUnet1D, _Conv, _DoublingConv, live_range
from reconverge.policy.config import UnetConfig

SMALL = UnetConfig(channels=(8, 16, 16), kernel=5, groups=4, timestep_features=8, attention_heads=2)
BOTH_FORMS = pytest.mark.parametrize("few_rows", [0, 64], ids=["convolution", "matrix product"])
HORIZONS = pytest.mark.parametrize("horizon", [4, 8, 16])


def unet_and_batch(horizon: int, dtype: torch.dtype = torch.float64, batch: int = 3) -> tuple[ConditionalUnet1D, tuple[Tensor, Tensor, Tensor]]:
    torch.manual_seed(0)
    unet = ConditionalUnet1D(SMALL, horizon, action_size=2, condition_size=6).to(dtype)
    return unet, (torch.randn(batch, horizon, 2, dtype=dtype), torch.arange(batch) * 7, torch.randn(batch, 6, dtype=dtype))


def convolutions(unet: nn.Module) -> dict[str, _Conv | _DoublingConv]:
    return {name: module for name, module in unet.named_modules() if isinstance(module, _Conv | _DoublingConv)}


def test_the_example_of_the_docstring() -> None:
    assert live_range(length=2, kernel=5, stride=1, padding=2) == slice(1, 4)


@pytest.mark.parametrize("length", [1, 2, 4, 8])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 1, 2), (3, 1, 1), (7, 1, 3), (1, 1, 0), (3, 2, 1), (4, 2, 1)])
def test_live_taps_are_those_that_get_a_gradient(length: int, kernel: int, stride: int, padding: int) -> None:
    if length == 1 and stride == 2:
        length = 2
    weight = torch.ones(1, 1, kernel, requires_grad=True)
    nn.functional.conv1d(torch.rand(1, 1, length) + 1, weight, stride=stride, padding=padding).sum().backward()
    assert weight.grad is not None
    moved = weight.grad.flatten().nonzero().flatten().tolist()
    live = live_range(length, kernel, stride, padding)
    assert moved == list(range(kernel))[live]


def test_the_same_holds_for_the_transposed_convolution() -> None:
    for length, expected in ((1, [1, 2]), (2, [0, 1, 2, 3])):
        weight = torch.ones(1, 1, 4, requires_grad=True)
        nn.functional.conv_transpose1d(torch.rand(1, 1, length) + 1, weight, stride=2, padding=1).sum().backward()
        assert weight.grad is not None and weight.grad.flatten().nonzero().flatten().tolist() == expected
        assert list(range(4))[live_range(2 * length, 4, 2, 1)] == expected


@HORIZONS
@BOTH_FORMS
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 2e-5)])
def test_outputs_and_gradients_are_those_of_the_form_with_all_taps(
    horizon: int, few_rows: int, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional_unet, "FEW_ROWS", few_rows)
    unet, batch = unet_and_batch(horizon, dtype)
    full = with_all_taps(unet)
    noise, expected = unet(*batch), full(*batch)
    assert torch.allclose(noise, expected, rtol=0, atol=tolerance)

    noise.square().sum().backward()
    expected.square().sum().backward()
    live = convolutions(unet)
    for (name, parameter), reference in zip(unet.named_parameters(), full.parameters(), strict=True):
        gradient, conv = reference.grad, live.get(name.removesuffix(".weight"))
        assert parameter.grad is not None and gradient is not None
        if conv is not None:
            dead = gradient.clone()
            dead[..., conv.live] = 0
            assert not dead.any()
            gradient = gradient[..., conv.live]
        assert torch.allclose(parameter.grad, gradient, rtol=0, atol=tolerance * max(1.0, float(gradient.abs().max())) * 10)


def test_every_live_tap_gets_a_gradient() -> None:
    unet, batch = unet_and_batch(4)
    unet(*batch).square().sum().backward()
    for name, conv in convolutions(unet).items():
        assert conv.weight.grad is not None and conv.weight.grad.any(dim=0).any(dim=0).all(), name


def test_the_count_of_the_form_with_all_taps() -> None:
    with torch.device("meta"):
        at_8, at_32 = (ConditionalUnet1D(UnetConfig(), horizon, action_size=4, condition_size=6 * 39) for horizon in (8, 32))
    counts = [sum(parameter.numel() for parameter in unet.parameters()) for unet in (at_8, at_32)]
    assert counts == [63_871_236, 83_269_892]
    assert at_8.full_parameter_count == at_32.full_parameter_count == counts[1]


def test_initial_weights_are_cut_from_those_of_the_full_form() -> None:
    """The same seed and the same scale as with whole kernels: the number of taps left does not enter."""
    torch.manual_seed(0)
    conv = _Conv(3, 4, kernel=5, length=2)
    torch.manual_seed(0)
    whole = nn.Conv1d(3, 4, 5, padding=2)
    assert torch.equal(conv.weight, whole.weight[..., 1:4]) and torch.equal(conv.bias, whole.bias)  # type: ignore[arg-type]


@BOTH_FORMS
def test_the_split_call_with_one_timestep_equals_forward(few_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_unet, "FEW_ROWS", few_rows)
    unet, (noisy, _, condition) = unet_and_batch(8)
    prepared = unet.embed_condition(condition)
    for timestep in (0, 5):
        one = torch.tensor([timestep])
        expected = unet(noisy, one.expand(3), condition)
        assert torch.equal(unet.denoise(noisy, one.expand(3), prepared), expected)
        assert torch.allclose(unet.denoise(noisy, one, prepared), expected, rtol=0, atol=1e-13)


def test_a_row_does_not_depend_on_the_size_of_a_rollouts_batch() -> None:
    assert conditional_unet.FEW_ROWS < SMALLEST_BATCH
    unet, (noisy, timestep, condition) = unet_and_batch(4, torch.float32, batch=100)
    alone = unet(noisy[:SMALLEST_BATCH], timestep[:SMALLEST_BATCH], condition[:SMALLEST_BATCH])
    for batch in (40, 64, 100):
        assert torch.equal(unet(noisy[:batch], timestep[:batch], condition[:batch])[:SMALLEST_BATCH], alone)


def test_film_is_linear_of_mish_of_both() -> None:
    film = conditional_unet._FiLM(time_size=5, condition_size=3, outputs=4).double()
    time, condition = torch.randn(2, 5, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    halves = film.time_half(time) + film.condition_half(condition)
    assert torch.allclose(halves, film(torch.cat([time, condition], dim=-1)), rtol=0, atol=1e-14)


def test_per_draw_gradients_are_the_same_under_vmap() -> None:
    unet, batch = unet_and_batch(8)
    parameters = {name: parameter.detach() for name, parameter in unet.named_parameters()}

    def loss(point: dict[str, Tensor], *one: Tensor) -> Tensor:
        return torch.func.functional_call(unet, point, tuple(part[None] for part in one)).square().mean()

    rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0))(parameters, *batch)
    mean = torch.autograd.grad(unet(*batch).square().mean(), list(unet.parameters()))
    assert all(torch.allclose(rows[name].mean(0), whole, atol=1e-12) for name, whole in zip(parameters, mean, strict=True))
