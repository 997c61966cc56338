import pytest
import torch

from reconverge.policy.conditional_unet import ConditionalUnet1D, sinusoidal_features
from reconverge.policy.config import PolicyConfig, ResidualMLPConfig, UnetConfig
from reconverge.policy.denoiser import ResidualMLP, build_denoiser


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_papers_settings_give_the_papers_parameter_count() -> None:
    with torch.device("meta"):
        unet = ConditionalUnet1D(UnetConfig(), horizon=8, action_size=4, condition_size=6 * 39)
    assert round(unet.full_parameter_count / 1e6, 2) == 83.27


def test_the_cpu_default_has_less_than_a_million_parameters() -> None:
    assert 0.8e6 < count(build_denoiser(PolicyConfig(), action_size=4, condition_size=2 * 39 + 10)) < 0.9e6


@pytest.mark.parametrize("batch", [1, 3])
def test_shapes(batch: int) -> None:
    small = UnetConfig(channels=(8, 16), kernel=3, groups=4, timestep_features=8, attention_heads=2)
    for denoiser in (ConditionalUnet1D(small, 4, 2, 6), ResidualMLP(ResidualMLPConfig(16, 2, 8), 4 * 2, 6)):
        noise = denoiser(torch.randn(batch, 4, 2), torch.arange(batch), torch.randn(batch, 6))
        assert noise.shape == (batch, 4, 2)


def test_a_horizon_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon 6 must be divisible by 4"):
        ConditionalUnet1D(UnetConfig(channels=(8, 8, 8), groups=4), 6, 2, 3)


def test_every_parameter_of_the_unet_gets_a_gradient() -> None:
    unet = ConditionalUnet1D(UnetConfig(channels=(8, 16), kernel=3, groups=4, timestep_features=8, attention_heads=2), 4, 2, 6)
    unet(torch.randn(2, 4, 2), torch.arange(2), torch.randn(2, 6)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in unet.parameters())


def test_timestep_features_start_at_frequency_one() -> None:
    features = sinusoidal_features(torch.tensor([0, 1]), 8)
    assert features[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert features[1, 0] == torch.sin(torch.tensor(1.0))
