"""What a curriculum did to success: pure functions of one matrix.

    R   (K+1, T)   success rate in [0, 1]; row i = after stage i, row 0 = untrained; column j = task j
                   NaN = not measured
    own_stage (T,) the stage at which task j was first learned, 1-based; default 1, 2, ..., T

A worked example, three tasks learned in order:

            task 1   task 2   task 3
    0        0.0      0.1      0.0      untrained
    1        0.8      0.2      NaN      own stage of task 1
    2        0.9      0.6      0.3
    3        0.5      0.7      1.0      final

    average success                 (0.5 + 0.7 + 1.0) / 3                         =  0.7333
    average success over stages     0.8, (0.9 + 0.6) / 2, 0.7333
    forgetting, end of own task     ((0.8 - 0.5) + (0.6 - 0.7) + (1.0 - 1.0)) / 3  =  0.0667
    forgetting, peak                ((0.9 - 0.5) + (0.6 - 0.7)) / 2               =  0.15
    backward transfer               ((0.5 - 0.8) + (0.7 - 0.6)) / 2               = -0.1
    forward transfer                ((0.2 - 0.1) + (0.3 - 0.0)) / 2               =  0.2

A run that is still going has fewer rows: row K is its last finished stage, and tasks whose own stage lies after K do not
count. A task lacking a cell that a formula needs is left out of that mean; a mean of nothing is NaN. No function alters
its argument. A task that a curriculum learns twice, as `cw20` does, has two columns where the question is what became of what a stage
had learned (forgetting, backward transfer): one per stage, as Continual World counts them (`RunResults.by_stage`). In averages and
in forward transfer it has one, with its first stage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Matrix = np.ndarray


def average_success(matrix: Matrix, own_stage: Sequence[int] | None = None) -> float:
    """Mean of R[K, j] over the tasks learned so far, in [0, 1]."""
    rates, own = _checked(matrix, own_stage)
    return mean_measured(rates[-1, own < len(rates)])


def average_success_over_stages(matrix: Matrix, own_stage: Sequence[int] | None = None) -> np.ndarray:
    """(K,): entry i - 1 is the mean of R[i, j] over the tasks with own_stage[j] <= i, for i = 1..K."""
    rates, own = _checked(matrix, own_stage)
    return np.array([mean_measured(rates[stage, own <= stage]) for stage in range(1, len(rates))])


def forgetting_per_task(matrix: Matrix, own_stage: Sequence[int] | None = None) -> np.ndarray:
    """(T,): R[own_j, j] - R[K, j], in [-1, 1]; NaN for a task that is not learned yet."""
    rates, own = _checked(matrix, own_stage)
    return _own_success(rates, own) - rates[-1]


def forgetting_end_of_own_task(matrix: Matrix, own_stage: Sequence[int] | None = None) -> float:
    """Mean over all learned tasks of R[own_j, j] - R[K, j], in [-1, 1].

    The form of Continual World and of arXiv 2602.02417: the last task counts with its 0. Negative when tasks improved after
    they were learned.
    """
    return mean_measured(forgetting_per_task(matrix, own_stage))


def forgetting_peak(matrix: Matrix, own_stage: Sequence[int] | None = None) -> float:
    """Mean over tasks with own_j < K of max over own_j <= i < K of R[i, j], minus R[K, j]; in [-1, 1].

    The form of Chaudhry et al. (2018). The peak is a maximum over noisy rates, so this lies above zero even for a policy that
    does not change; `forgetting_end_of_own_task` does not have that bias.
    """
    return mean_measured(forgetting_peak_per_task(matrix, own_stage))


def forgetting_peak_per_task(matrix: Matrix, own_stage: Sequence[int] | None = None) -> np.ndarray:
    """(T,): max over own_j <= i < K of R[i, j], minus R[K, j], in [-1, 1]; NaN for a task with own_j >= K."""
    rates, own = _checked(matrix, own_stage)
    final = len(rates) - 1
    return np.array([_maximum(rates[own[j] : final, j]) - rates[final, j] if own[j] < final else np.nan for j in range(len(own))])


def backward_transfer(matrix: Matrix, own_stage: Sequence[int] | None = None) -> float:
    """Mean over tasks with own_j < K of R[K, j] - R[own_j, j], in [-1, 1] (Lopez-Paz & Ranzato 2017).

    Positive: later tasks helped earlier ones. It is minus the forgetting, without the last task's zero in the mean.
    """
    return mean_measured(backward_transfer_per_task(matrix, own_stage))


def backward_transfer_per_task(matrix: Matrix, own_stage: Sequence[int] | None = None) -> np.ndarray:
    """(T,): R[K, j] - R[own_j, j], in [-1, 1]; NaN for a task with own_j >= K."""
    rates, own = _checked(matrix, own_stage)
    return np.where(own < len(rates) - 1, rates[-1] - _own_success(rates, own), np.nan)


def forward_transfer(matrix: Matrix, own_stage: Sequence[int] | None = None) -> float:
    """Mean over tasks with own_j > 1 of R[own_j - 1, j] - R[0, j], in [-1, 1] (Lopez-Paz & Ranzato 2017).

    Success on a task just before it is learned, above that of the untrained policy: what the earlier tasks gave for nothing.
    A task that the run has not reached counts as soon as the stage before it is measured.
    """
    rates, own = _checked(matrix, own_stage)
    gains = [rates[own[j] - 1, j] - rates[0, j] for j in range(len(own)) if 1 < own[j] <= len(rates)]
    return mean_measured(np.array(gains))


def own_stages(tasks: Sequence[str]) -> dict[str, int]:
    """The 1-based stage at which each distinct task first occurs in a curriculum's list of stages, in that order."""
    first: dict[str, int] = {}
    for stage, task in enumerate(tasks, start=1):
        first.setdefault(task, stage)
    return first


def _checked(matrix: Matrix, own_stage: Sequence[int] | None) -> tuple[np.ndarray, np.ndarray]:
    rates = np.array(matrix, dtype=float)
    if rates.ndim != 2 or len(rates) < 1:
        raise ValueError(f"a success matrix has the axes (stage 0..K, task), got shape {rates.shape}")
    own = np.arange(1, rates.shape[1] + 1) if own_stage is None else np.asarray(own_stage, dtype=int)
    if own.shape != rates.shape[1:]:
        raise ValueError(f"own_stage needs one entry per task, got {own.shape} for {rates.shape[1]} tasks")
    if (own < 1).any():
        raise ValueError(f"own_stage is 1-based, got {own.tolist()}")
    return rates, own


def _own_success(rates: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(T,): R[own_j, j]; NaN where stage own_j lies after the last row."""
    success = np.full(len(own), np.nan)
    learned = np.flatnonzero(own < len(rates))
    success[learned] = rates[own[learned], learned]
    return success


def mean_measured(values: np.ndarray | Sequence[float]) -> float:
    """The mean of what is a number; NaN of nothing."""
    found = np.asarray(values, dtype=float)
    measured = found[~np.isnan(found)]
    return float(measured.mean()) if len(measured) else float("nan")


def _maximum(values: np.ndarray) -> float:
    measured = values[~np.isnan(values)]
    return float(measured.max()) if len(measured) else float("nan")
