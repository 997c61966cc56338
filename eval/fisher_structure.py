"""Is the Fisher of a diffusion model rank one, and along its mean gradient? (arXiv 2509.23593, section 3.3)

From the gradients G (n, P) of n draws the empirical Fisher is F = G^T G / n. It is never formed: all that is asked follows
from the inner products K = G G^T (n, n) and from the diagonal of F (P,). With mu = mean g, mu . g_k = mean_i K_ik:

    ||F||^2             = mean of K_ij^2
    mu^T F mu           = mean of (mu . g_k)^2
    ||F - c mu mu^T||^2 = ||F||^2 - 2 c mu^T F mu + c^2 ||mu||^4        c = mu^T F mu / ||mu||^4, as in `policy/fisher.py`
    ||F - diag F||^2    = ||F||^2 - ||diag F||^2

Worked example, n = P = 2: g_1 = (1, 0), g_2 = (0, 1). K = I, F = I / 2, mu = (1/2, 1/2), mu . g_k = 1/2, mu^T F mu = ||mu||^4 = 1/4, c = 1.
||F||^2 = 1/2, rank-1 error sqrt(1/2 - 1/2 + 1/4) / sqrt(1/2) = 0.707, which no rank-1 matrix betters; the diagonal's is 0.

What n draws can show. Draws without any common direction give a collinearity of 1/n, and every error measured on the draws it was
fitted to flatters the form: K's diagonal holds each gradient's product with itself. So beside each figure stands

    of noise       the mean over random signs of the gradients, which leave F as it is and take the mean out of them
    held out       the form fitted to one half of the draws, measured on the other
    unbiased       products of different draws only
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from reconverge.policy.fisher import DrawLosses, Draws, draw_gradients

HELD_BYTES = 400_000_000  # gradients held at once, twice; bounds the memory, not the result
DRAWS_AT_ONCE = 8  # draws per pass
SIGNS = 64  # random signs of all draws, for what noise would give


@dataclass(frozen=True)
class GradientProducts:
    """What is kept of n draws' gradients.

    Attributes:
        gram: (n, n) in float64, g_i . g_j.
        diagonal: ||diag F||^2.
        fourth: sum over draws and parameters of g^4.
    """

    gram: Tensor
    diagonal: float
    fourth: float


@dataclass(frozen=True)
class FisherStructure:
    """Shape of the Fisher of n draws. Errors are Frobenius norms of the difference, relative to ||F||.

    Attributes:
        mu_norm: ||mu||.
        collinearity: ||E g||^2 / E||g||^2, in [0, 1]; of noise: `collinearity_of_noise` = 1/n.
        collinearity_unbiased: the same from different draws only; about 0 for noise, and may be below.
        split_half_cosine: cosine of the mu of two halves; of noise: 0, give or take `split_half_spread`.
        spectral_ratio: lambda_2 / lambda_1 of F, in [0, 1].
        rank1_error: of c mu mu^T, on the draws it is fitted to, of noise, and held out (above 1: worse than no penalty).
        best_rank1_error: of the best rank-1 matrix, that of the first eigenvector, and the same held out.
        diagonal_error: of diag F, on the draws it is fitted to, and unbiased.
    """

    draws: int
    mu_norm: float
    collinearity: float
    collinearity_of_noise: float
    collinearity_unbiased: float
    split_half_cosine: float
    split_half_spread: float
    spectral_ratio: float
    rank1_error: float
    rank1_error_of_noise: float
    rank1_error_held_out: float
    best_rank1_error: float
    best_rank1_error_held_out: float
    diagonal_error: float
    diagonal_error_unbiased: float


def gradient_products(losses: DrawLosses, theta: Tensor, draws: Draws, held_bytes: int = HELD_BYTES) -> GradientProducts:
    """Inner products of the draws' gradients at `theta` (P,), at most two blocks of `held_bytes` at a time."""
    rows = max(1, held_bytes // (theta.numel() * theta.element_size()))
    blocks = [tuple(part[start : start + rows] for part in draws) for start in range(0, len(draws[0]), rows)]
    gram = torch.zeros(len(draws[0]), len(draws[0]), dtype=torch.float64)
    squares, fourth = torch.zeros_like(theta), 0.0
    for row, block in enumerate(blocks):
        left = _gradients(losses, theta, block)
        for gradient in left:
            square = gradient.square()
            squares += square
            fourth += float(square @ square)
        here = slice(row * rows, row * rows + len(left))
        gram[here, here] = (left @ left.T).double().cpu()
        for column, other in enumerate(blocks[:row]):
            there = slice(column * rows, column * rows + rows)
            gram[here, there] = (left @ _gradients(losses, theta, other).T).double().cpu()
            gram[there, here] = gram[here, there].T
    diagonal = (squares / len(gram)).double().square().sum()
    return GradientProducts(gram, float(diagonal), fourth)


def _gradients(losses: DrawLosses, theta: Tensor, draws: Draws) -> Tensor:
    """(n, P) gradient of every draw's loss at `theta`, `DRAWS_AT_ONCE` at a time."""
    gradients = theta.new_empty(len(draws[0]), len(theta))
    for start in range(0, len(gradients), DRAWS_AT_ONCE):
        rows = slice(start, start + DRAWS_AT_ONCE)
        gradients[rows] = draw_gradients(losses, theta.detach(), tuple(part[rows] for part in draws))
    return gradients


def fisher_structure(products: GradientProducts, signs: torch.Generator) -> FisherStructure:
    """Every figure from the inner products of at least four draws; `signs` draws the signs that take the mean out."""
    gram, count = products.gram, len(products.gram)
    if count < 4:
        raise ValueError(f"two halves of at least two draws are needed, got {count} draws")
    mean_square = float(gram.diagonal().mean())
    eigenvalues = torch.linalg.eigvalsh(gram / count).clamp_min(0).flip(0)
    squared_norm = float(gram.square().mean())
    distinct = _over_distinct(gram.square())
    flips = 2.0 * torch.randint(2, (SIGNS, count), generator=signs).double() - 1
    cosines_of_noise, errors_of_noise = zip(*(_of_noise(gram, flip, squared_norm) for flip in flips), strict=True)
    return FisherStructure(
        draws=count,
        mu_norm=max(float(gram.mean()), 0.0) ** 0.5,
        collinearity=_ratio(float(gram.mean()), mean_square),
        collinearity_of_noise=1 / count,
        collinearity_unbiased=_ratio(_over_distinct(gram), mean_square),
        split_half_cosine=_split_half_cosine(gram),
        split_half_spread=float(torch.tensor(cosines_of_noise).std()),
        spectral_ratio=_ratio(float(eigenvalues[1]), float(eigenvalues[0])),
        rank1_error=_rank1_error(gram, gram, _mean_direction(gram), squared_norm),
        rank1_error_of_noise=sum(errors_of_noise) / SIGNS,
        rank1_error_held_out=_held_out_error(gram, _mean_direction),
        best_rank1_error=_root(1 - _ratio(float(eigenvalues[0]) ** 2, squared_norm)),
        best_rank1_error_held_out=_held_out_error(gram, _first_eigenvector),
        diagonal_error=_root(1 - _ratio(products.diagonal, squared_norm)),
        diagonal_error_unbiased=_root(1 - _ratio((count * products.diagonal - products.fourth / count) / (count - 1), distinct)),
    )


def timestep_bands(timesteps: int, count: int) -> list[tuple[int, int]]:
    """`count` bands [low, high) of equal width that cover 0..N-1; fewer where N is smaller."""
    edges = [round(edge * timesteps / min(count, timesteps)) for edge in range(min(count, timesteps) + 1)]
    return list(pairwise(edges))


# A rank-1 form d d^T, its direction d = sum_i w_i g_i given by the weights w (n,) of the draws


def _mean_direction(gram: Tensor) -> Tensor:
    return torch.full((len(gram),), 1 / len(gram), dtype=gram.dtype)


def _first_eigenvector(gram: Tensor) -> Tensor:
    return torch.linalg.eigh(gram)[1][:, -1]


def _rank1_error(own: Tensor, measured: Tensor, weights: Tensor, squared_norm: float) -> float:
    """Error of c d d^T, with d and c from draws of products `own` (a, a), on draws of products `measured` (b, a) with them."""
    along = own @ weights
    length = float(weights @ along)
    if length <= 0:
        return 1.0
    curvature = float(along.square().mean()) / length**2
    met = float((measured @ weights).square().mean())
    return _root(1 + _ratio(curvature * (curvature * length**2 - 2 * met), squared_norm))


def _of_noise(gram: Tensor, flip: Tensor, squared_norm: float) -> tuple[float, float]:
    """Split-half cosine and rank-1 error with the draws' signs changed by `flip` (n,); one n x n matrix at a time."""
    flipped = gram * flip[:, None] * flip
    return _split_half_cosine(flipped), _rank1_error(flipped, flipped, _mean_direction(flipped), squared_norm)


def _held_out_error(gram: Tensor, direction: Callable[[Tensor], Tensor]) -> float:
    """Root mean square over both orders of the halves; ||F||^2 from different draws only."""
    half, squared_norm = len(gram) // 2, _over_distinct(gram.square())
    first, second = slice(0, half), slice(half, None)
    errors = [_rank1_error(gram[a, a], gram[b, a], direction(gram[a, a]), squared_norm) for a, b in ((first, second), (second, first))]
    return _root(sum(error**2 for error in errors) / 2)


def _split_half_cosine(gram: Tensor) -> float:
    half = len(gram) // 2
    lengths = float(gram[:half, :half].mean()) * float(gram[half:, half:].mean())
    return _ratio(float(gram[:half, half:].mean()), _root(lengths))


def _over_distinct(products: Tensor) -> float:
    """Mean over pairs of different draws."""
    count = len(products)
    return float(products.sum() - products.diagonal().sum()) / (count * (count - 1))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _root(square: float) -> float:
    return max(square, 0.0) ** 0.5
