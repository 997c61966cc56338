"""The diagnostics: the Fisher's shape against explicit matrices, the meta-gradient against its closed form, hand-made replay, a whole run."""

from __future__ import annotations

import csv
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from small_policy import random_windows, small_policy
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from reconverge.envs.demonstrations_config import DemonstrationConfig
from reconverge.envs.errors import ConfigError, RunFolderError
from reconverge.eval.config import DiagnosisConfig, EvaluationConfig, RecoveryConfig
from reconverge.eval.diagnostics_results import read_diagnostics, summary_tables
from reconverge.eval.fisher_structure import GradientProducts, fisher_structure, gradient_products, timestep_bands
from reconverge.eval.meta_gradient import cosine, distillation_losses, meta_gradient, noise_free_cosine
from reconverge.eval.optima_distance import optima_distances
from reconverge.eval.replay_fidelity import balanced, fidelity, nearest, outside_share
from reconverge.eval.report import write_report
from reconverge.launch.config import RunConfig
from reconverge.launch.curriculum_run import train
from reconverge.launch.diagnosis import COLUMNS, diagnose
from reconverge.launch.presets import find_preset
from reconverge.launch.progress import Progress
from reconverge.launch.run_folder import RunFolder
from reconverge.policy.diffusion_policy import DiffusionPolicy
from reconverge.policy.fisher import Draws, denoising_losses, draw_gradients
from reconverge.policy.flat_parameters import FlatParameters
from reconverge.policy.random_streams import torch_stream


def products_of(gradients: Tensor) -> GradientProducts:
    """The products of given gradients (n, P), as those of the losses g . theta."""
    theta = torch.zeros(gradients.shape[1], dtype=gradients.dtype)
    return gradient_products(lambda point, draws: draws[0] @ point, theta, (gradients,))


def structure_of(gradients: Tensor) -> dict[str, float]:
    return asdict(fisher_structure(products_of(gradients), torch_stream("signs")))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch_stream("test", seed), dtype=torch.float64)


# The Fisher's shape


def test_the_worked_example_of_the_module() -> None:
    found = structure_of(torch.eye(2, dtype=torch.float64).repeat(2, 1))  # each of the two gradients twice: the same F and mu
    assert found["rank1_error"] == pytest.approx(0.5**0.5)
    assert found["best_rank1_error"] == pytest.approx(0.5**0.5)
    assert found["diagonal_error"] == pytest.approx(0.0, abs=1e-7)
    assert found["collinearity"] == pytest.approx(0.5) and found["spectral_ratio"] == pytest.approx(1.0)


def test_gradients_along_one_direction_are_rank_one_exactly() -> None:
    lengths, direction = normal(40, seed=1) + 1, normal(6, seed=2)
    found = structure_of(lengths[:, None] * direction)
    for name in ("rank1_error", "best_rank1_error"):
        assert found[name] == pytest.approx(0.0, abs=1e-6)
    assert found["collinearity"] == pytest.approx(float(lengths.mean() ** 2 / lengths.square().mean()))
    assert found["spectral_ratio"] == pytest.approx(0.0, abs=1e-9)
    assert abs(found["split_half_cosine"]) == pytest.approx(1.0)


def test_isotropic_gradients_have_the_errors_that_can_be_worked_out() -> None:
    size = 8
    axes = torch.eye(size, dtype=torch.float64)
    found = structure_of(torch.cat([axes, -axes]))  # F = I / P, mu = 0
    assert found["best_rank1_error"] == pytest.approx((1 - 1 / size) ** 0.5)
    assert found["rank1_error"] == 1.0 and found["collinearity"] == 0.0
    assert found["diagonal_error"] == pytest.approx(0.0, abs=1e-7)


def test_every_figure_equals_that_of_the_explicit_matrices() -> None:
    gradients = normal(12, 7) + 0.5
    found, fisher, mu = structure_of(gradients), gradients.T @ gradients / 12, gradients.mean(0)
    curvature = (gradients @ mu).square().mean() / mu.square().sum() ** 2
    eigenvalues = torch.linalg.eigvalsh(fisher).flip(0)
    norm = fisher.norm()
    assert found["rank1_error"] == pytest.approx(float((fisher - curvature * torch.outer(mu, mu)).norm() / norm))
    assert found["diagonal_error"] == pytest.approx(float((fisher - fisher.diagonal().diag()).norm() / norm))
    assert found["best_rank1_error"] == pytest.approx(float(eigenvalues[1:].norm() / norm))
    assert found["spectral_ratio"] == pytest.approx(float(eigenvalues[1] / eigenvalues[0]))
    assert found["mu_norm"] == pytest.approx(float(mu.norm()))
    halves = gradients[:6].mean(0), gradients[6:].mean(0)
    assert found["split_half_cosine"] == pytest.approx(cosine(*halves))


def test_held_out_errors_are_measured_on_the_other_half() -> None:
    halves = normal(20, 5, seed=3).split(10)
    gram = torch.cat(halves) @ torch.cat(halves).T
    squared_norm = (gram.square().sum() - gram.diagonal().square().sum()) / (20 * 19)
    squares = []
    for own, other in (halves, halves[::-1]):
        mu, unseen = own.mean(0), other.T @ other / 10
        form = (own @ mu).square().mean() / mu.square().sum() ** 2 * torch.outer(mu, mu)
        squares.append(1 + (form.square().sum() - 2 * (form * unseen).sum()) / squared_norm)
    assert structure_of(torch.cat(halves))["rank1_error_held_out"] == pytest.approx(float(sum(squares) / 2) ** 0.5)


def test_of_noise_the_figures_show_their_floors() -> None:
    found = structure_of(normal(400, 50))
    assert found["collinearity"] == pytest.approx(found["collinearity_of_noise"], rel=0.3)
    assert abs(found["collinearity_unbiased"]) < 1e-3
    assert abs(found["split_half_cosine"]) < 3 * found["split_half_spread"]
    assert found["rank1_error"] == pytest.approx(found["rank1_error_of_noise"], abs=0.02)
    assert found["diagonal_error"] > 0.3 and found["diagonal_error_unbiased"] < 0.15  # F is diagonal; 400 draws hide it


def test_blocks_and_passes_change_nothing() -> None:
    gradients = normal(30, 11)
    whole, theta = products_of(gradients), torch.zeros(11, dtype=torch.float64)
    blocks = gradient_products(lambda point, draws: draws[0] @ point, theta, (gradients,), held_bytes=4 * 11 * 8)
    torch.testing.assert_close(blocks.gram, whole.gram)
    torch.testing.assert_close(whole.gram, gradients @ gradients.T)
    assert (blocks.diagonal, blocks.fourth) == pytest.approx((whole.diagonal, whole.fourth))


def test_a_draws_gradient_is_that_of_its_own_denoising_loss() -> None:
    policy = small_policy()
    parameters, draws = FlatParameters(policy.denoiser), draws_of(policy, 10)
    losses = denoising_losses(policy, parameters)
    gradients = draw_gradients(losses, parameters.values, draws)
    point = parameters.values.clone().requires_grad_()
    (expected,) = torch.autograd.grad(losses(point, draws)[3], point)
    torch.testing.assert_close(gradients[3], expected, rtol=1e-4, atol=1e-6)


def test_bands_cover_every_timestep_once() -> None:
    assert timestep_bands(100, 5) == [(0, 20), (20, 40), (40, 60), (60, 80), (80, 100)]
    assert timestep_bands(7, 3) == [(0, 2), (2, 5), (5, 7)]
    assert timestep_bands(2, 5) == [(0, 1), (1, 2)]


# The meta-gradient


def quadratic(theta: Tensor, draws: Draws) -> Tensor:
    """(1/2) (theta - optimum)^T H (theta - optimum) per draw (H (n, P, P), optimum (n, P))."""
    away = theta - draws[1]
    return 0.5 * torch.einsum("np,npq,nq->n", away, draws[0], away)


def test_the_meta_gradient_of_a_quadratic_is_its_closed_form() -> None:
    root, optimum, theta, alpha = normal(4, 4), normal(4, seed=1), normal(4, seed=2), 0.05
    hessian = root @ root.T
    draws = hessian[None], optimum[None]
    adapted = theta - alpha * hessian @ (theta - optimum)
    expected = (torch.eye(4, dtype=torch.float64) - alpha * hessian) @ hessian @ (adapted - optimum)
    torch.testing.assert_close(meta_gradient(quadratic, theta, draws, draws, alpha), expected)


def test_the_meta_gradient_of_a_policy_is_the_derivative_through_the_inner_step() -> None:
    policy = small_policy()
    parameters = FlatParameters(policy.denoiser)
    losses, (support, query) = denoising_losses(policy, parameters), (draws_of(policy, 12, seed) for seed in (0, 1))
    point = parameters.values.clone().requires_grad_()
    (inner,) = torch.autograd.grad(losses(point, support).mean(), point, create_graph=True)
    (expected,) = torch.autograd.grad(losses(point - 0.5 * inner, query).mean(), point)
    found = meta_gradient(losses, parameters.values, support, query, 0.5)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    (first_order,) = torch.autograd.grad(losses(point, query).mean(), point)
    assert (cosine(found, first_order) or 1) < 0.999  # the inner step matters here


def test_the_distillation_loss_is_the_gap_to_the_teacher() -> None:
    student, teacher = small_policy(seed=0), small_policy(seed=1)
    parameters, draws = FlatParameters(student.denoiser), draws_of(student, 6)
    clean, condition, timestep, noise = draws
    noisy = student.diffusion.add_noise(clean, noise, timestep)
    gap = student.predict_noise(noisy, timestep, condition) - teacher.predict_noise(noisy, timestep, condition)
    losses = distillation_losses(student, parameters, teacher)(parameters.values, draws)
    torch.testing.assert_close(losses, gap.square().mean((1, 2)))
    assert not distillation_losses(student, parameters, student)(parameters.values, draws).any()


def test_cosines_and_the_noise_in_them() -> None:
    assert cosine(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 1.0])) == pytest.approx(0.5**0.5)
    assert cosine(None, torch.ones(2)) is None and cosine(torch.zeros(2), torch.ones(2)) is None
    signal, noise = normal(2000), [2 * normal(2000, seed=seed) for seed in range(1, 5)]
    first, second = (signal + noise[0], signal + noise[1]), (signal + noise[2], signal + noise[3])
    assert cosine(first[0], second[0]) == pytest.approx(1 / 5, abs=0.08)  # the signal is a fifth of each square
    assert noise_free_cosine(first, second) == pytest.approx(1.0, abs=0.2)
    assert noise_free_cosine((signal, -signal), second) is None and noise_free_cosine((signal, None), second) is None


# Optima and replay


def test_distances_between_optima() -> None:
    distances, relative = optima_distances([torch.tensor([3.0, 4.0]), torch.tensor([3.0, 0.0])])
    assert distances.tolist() == [[0, 4], [4, 0]]
    assert relative[0, 1] == pytest.approx(0.8) and relative[1, 0] == pytest.approx(4 / 3)


def test_windows_near_their_own_task_are_pure_and_strays_are_counted() -> None:
    real = torch.tensor([[0.0, 0.0], [1.0, 1.0], [10.0, 10.0], [11.0, 11.0]])
    task = torch.tensor([0, 0, 1, 1])
    found = fidelity(torch.tensor([[0.1, 0.0], [1.0, 1.0], [9.0, 9.5], [0.5, 0.5]]), 0, real, task)
    assert found.purity == 0.75 and found.outside == 0.25  # the third lies near task 1, and outside the square that task 0 has shown
    assert found.distance == pytest.approx(0.1)  # the lower median of 0, 0.1, 0.707, 11.67


def test_a_range_is_widened_by_its_margin() -> None:
    real = torch.tensor([[0.0, 5.0], [10.0, 5.0]])
    windows = torch.tensor([[-0.4, 5.0], [10.6, 5.0], [5.0, 5.0005], [5.0, 5.1]])
    assert outside_share(windows, real) == 0.5


def test_nearest_works_in_parts_and_tasks_are_balanced() -> None:
    windows, real = normal(600, 3), normal(50, 3, seed=1)
    distance, index = nearest(windows, real)
    torch.testing.assert_close(distance, (windows[:, None] - real).norm(dim=2).min(1).values)
    torch.testing.assert_close((windows - real[index]).norm(dim=1), distance)
    chosen, task = balanced({3: real, 5: windows}, 30, torch_stream("balanced"))
    assert chosen.shape == (60, 3) and task.tolist() == [3] * 30 + [5] * 30


# A whole run


def draws_of(policy: object, count: int, seed: int = 0) -> Draws:
    """Random draws for a small policy."""
    windows = random_windows(count, seed=seed).all()
    noise = torch.randn(windows.actions.shape, generator=torch_stream("noise", seed))
    timestep = torch.randint(20, (count,), generator=torch_stream("timestep", seed))
    return windows.actions, policy.condition(windows.observations, windows.task), timestep, noise  # type: ignore[attr-defined]


def tiny_config(folder: Path, method: str) -> RunConfig:
    base = find_preset("smoke")
    return replace(
        base,
        method=method,  # type: ignore[arg-type]
        policy=replace(base.policy, mlp=replace(base.policy.mlp, width=16, blocks=1)),
        train=replace(base.train, updates=15, batch_size=16, trust_region=replace(base.train.trust_region, draws=64)),
        replay=replace(base.replay, windows_per_task=64, generator=replace(base.replay.generator, width=16, blocks=1, updates=15)),
        demonstrations=DemonstrationConfig(episodes=6, workers=0, folder=str(folder / "demonstrations")),
        evaluation=EvaluationConfig(episodes=1, workers=0),
        recovery=RecoveryConfig(episodes=1, grid=(2,)),
        video=replace(base.video, episodes=0),
    )


def diagnosed(folder: Path, method: str, curriculum: str, **region: object) -> tuple[Path, dict[str, list[dict[str, object]]]]:
    path, config = folder / method, tiny_config(folder, method)
    config = replace(config, curriculum=curriculum, train=replace(config.train, trust_region=replace(config.train.trust_region, **region)))  # type: ignore[arg-type]
    with RunFolder.create(path, config, "test") as run:
        train(run.config, run, Progress("quiet"))
        return path, diagnose(run, Progress("quiet"), DiagnosisConfig(draws=8, bands=2, batch=32, windows=16, starts=4))


def test_a_run_is_diagnosed_and_its_report_says_so(tmp_path: Path) -> None:
    path, tables = diagnosed(tmp_path, "trust-region", "point-reach:3")
    for name, columns in COLUMNS.items():
        with open(path / "diagnostics" / f"{name}.csv") as file:
            rows = list(csv.DictReader(file))
        assert tuple(rows[0]) == columns and len(rows) == len(tables[name])
    bands = [(row["stage"], row["first_timestep"], row["last_timestep"]) for row in tables["fisher_structure"][:3]]
    assert bands == [(1, 0, 49), (1, 0, 24), (1, 25, 49)]
    cells = [(2, "point-reach-0"), (3, "point-reach-0"), (3, "point-reach-1")]
    assert [(row["stage"], row["task"]) for row in tables["meta_gradient"]] == cells
    assert [(row["stage"], row["task"]) for row in tables["replay_fidelity"]] == cells
    assert [row["other_replay"] is None for row in tables["meta_gradient"]] == [True, False, False]
    assert all(abs(row[name]) <= 1 + 1e-9 for row in tables["meta_gradient"] for name in ("update", "replay", "penalty", "new_task", "random"))  # type: ignore[arg-type, operator]
    assert all(row["first_order"] > 0.999 for row in tables["meta_gradient"])  # type: ignore[operator]
    assert len(tables["optima_distance"]) == 6
    policies = {stage: DiffusionPolicy.load(path / "checkpoints" / f"stage-0{stage}") for stage in (1, 2, 3)}
    optima = {stage: parameters_to_vector(policy.denoiser.parameters()).detach() for stage, policy in policies.items()}
    for row in tables["optima_distance"]:
        one, other = optima[row["stage"]], optima[row["other_stage"]]  # type: ignore[index]
        assert row["relative"] == pytest.approx(float((one - other).norm() / one.norm()))
    assert [(row["stage"], row["task"], row["starts"], row["executed"], row["off"]) for row in tables["executed_starts"]] == [
        (2, "point-reach-0", 4, 4, 0.0), (3, "point-reach-1", 4, 4, 0.0),
    ]  # fmt: skip
    drawn = {(row["task"], row["replayed"]) for row in tables["window_strokes"]}
    assert drawn == {(task, kind) for task in ("point-reach-0", "point-reach-1") for kind in (True, False)}
    assert (path / "diagnostics" / "replayed_windows.png").read_bytes()[:4] == b"\x89PNG"

    page = write_report([path], tmp_path / "report.html").read_text()
    assert "Old-task updates and the meta-gradient" in page and "Fidelity of replay" in page
    assert [(row["stage"], row["task"]) for row in tables["action_spread"]] == [
        (1, "point-reach-0"), (2, "point-reach-0"), (2, "point-reach-1"), *((3, f"point-reach-{number}") for number in range(3)),
    ]  # fmt: skip
    assert "Is there anything to sample?" in page and "by the policy of stage 3" in page
    assert "Acting from replayed starts" in page and "shown goal, replayed" in page
    found = read_diagnostics(path)
    assert found is not None and len(summary_tables(found)) == 5 and [row.stage for row in found.over_all_timesteps] == [1, 2, 3]

    again = diagnose(RunFolder.open(path), Progress("quiet"), DiagnosisConfig(draws=8, bands=2, batch=32, windows=16, starts=4), stages=[3])
    assert again["executed_starts"] == tables["executed_starts"][1:]
    assert again["meta_gradient"] == tables["meta_gradient"][1:]  # a stage's figures do not depend on which others are asked for
    with pytest.raises(RunFolderError, match="no checkpoint of stage 7"):
        diagnose(RunFolder.open(path), Progress("quiet"), DiagnosisConfig(), stages=[7])
    with pytest.raises(ConfigError, match="--stages holds 0"):
        diagnose(RunFolder.open(path), Progress("quiet"), DiagnosisConfig(), stages=[0, 3])


@pytest.mark.parametrize(
    ("method", "region", "there"),
    [
        ("ewc", {}, {"update", "penalty"}),
        ("ewc", {"fisher": "diagonal"}, set()),
        ("ewc", {"form": "constraint"}, {"penalty"}),
        ("si", {}, set()),
        ("replay", {}, {"update", "replay"}),
        ("trust-region", {"fisher": "diagonal"}, {"replay"}),
    ],
    ids=["penalty", "diagonal", "constraint", "last optimum", "replay", "replay and diagonal"],
)
def test_what_a_method_lacks_is_left_out(tmp_path: Path, method: str, region: dict[str, str], there: set[str]) -> None:
    path, tables = diagnosed(tmp_path, method, "point-reach:2", **region)
    for name in ("update", "replay", "penalty"):
        assert all((row[name] is not None) == (name in there) for row in tables["meta_gradient"])
    assert bool(tables["replay_fidelity"]) == ("replay" in there)
    assert "Old-task updates" in write_report([path], tmp_path / "report.html").read_text()


def test_a_diagnosis_of_an_earlier_version_is_still_shown(tmp_path: Path) -> None:
    path, _ = diagnosed(tmp_path, "replay", "point-reach:2")
    for name in ("action_spread.csv", "executed_starts.csv", "window_strokes.csv"):
        (path / "diagnostics" / name).unlink()
    page = write_report([path], tmp_path / "report.html").read_text()
    assert "Fidelity of replay" in page and "Acting from replayed starts" not in page and "anything to sample" not in page


def test_a_run_that_was_not_diagnosed_has_no_section(tmp_path: Path) -> None:
    assert read_diagnostics(tmp_path) is None


def test_noise_free_cosines_are_a_median_over_cells_with_a_meta_gradient_to_speak_of() -> None:
    from reconverge.eval.diagnostics_results import Diagnostics, MetaRow

    blank = MetaRow(2, "hammer-v3", 1e-4, 32, *(None,) * 10)
    cells = ((0.2, 0.4, 0.5), (0.4, 0.6, 0.05), (0.6, 1.4, 0.9), (0.8, 900.0, 0.01), (0.5, 0.0, None))
    meta = tuple(replace(blank, update=update, update_noise_free=freed, repeat=repeat) for update, freed, repeat in cells)
    found = Diagnostics((), meta, (), ())
    assert found.typical_cosine("update") == pytest.approx((0.5, 5, 5))
    assert found.typical_cosine("update_noise_free") == (0.6, 3, 5)
    assert found.typical_cosine("penalty") == (None, 0, 0)
    ((_, rows),) = summary_tables(found)
    assert [(row["cosine"], row["cells"]) for row in rows[:2]] == [("0.500", "5"), ("0.600", "3 of 5")]
    nowhere = Diagnostics((), tuple(replace(row, repeat=0.0) for row in meta), (), ())
    assert nowhere.typical_cosine("update_noise_free") == (None, 0, 5)
