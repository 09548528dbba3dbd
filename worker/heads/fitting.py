"""The convex problem behind a head: which label a crop shows, in competition with what the network knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import logsumexp

Floats = npt.NDArray[np.float64]

SPREAD = 10.0
"""Root of the inputs' total variance, so that strengths mean the same for every network."""
_MOST = 512
_SMALLEST = 1e-9


@dataclass(frozen=True, eq=False)
class LastLayer:
    """A network's last linear layer: logits = features @ weight.T + bias."""

    weight: Floats
    """(C, D)"""
    bias: Floats
    """(C,)"""

    def logits(self, seen: npt.NDArray[np.floating]) -> Floats:
        """(N, D) → (N, C)."""
        return np.asarray(seen.astype(np.float64) @ self.weight.T + self.bias)


@dataclass(frozen=True, eq=False)
class Space:
    """The directions in which features differ, as few as there are.

    Features (N, D) and the logits that follow from them (N, C) count alike, each with total variance 1/2: what
    ImageNet's classes look at is a good guess of what labels differ in, and still the result is linear in the
    features. An L2-penalised linear model needs no other directions than those between its examples.
    """

    centre: Floats
    """(D,)"""
    axes: Floats
    """(D, r): coordinates are (features − centre) @ axes."""

    @classmethod
    def of(cls, seen: npt.NDArray[np.floating], last: LastLayer) -> Self:
        """Of at least two examples (N, D)."""
        values = seen.astype(np.float64)
        centre = values.mean(0)
        values = values - centre
        logits = values @ last.weight.T
        one, other = (SPREAD / np.sqrt(2 * max(part.var(0).sum(), _SMALLEST)) for part in (values, logits))
        gram = one**2 * values @ values.T + other**2 * logits @ logits.T
        strengths, vectors = np.linalg.eigh(gram)
        kept = np.flatnonzero(strengths > strengths[-1] * _SMALLEST)[-_MOST:]
        vectors = vectors[:, kept] / np.sqrt(strengths[kept])
        axes = one**2 * values.T @ vectors + other**2 * last.weight.T @ (logits.T @ vectors)
        return cls(centre, axes)

    def coordinates(self, seen: npt.NDArray[np.floating]) -> Floats:
        """(N, D) → (N, r)."""
        return np.asarray((seen.astype(np.float64) - self.centre) @ self.axes)

    def folded(self, weights: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """A linear function of coordinates, (r, K) and (K,), as one of features: (K, D) and (K,)."""
        of_features = (self.axes @ weights).T
        return of_features, bias - of_features @ self.centre


def fit(
    inputs: Floats,
    targets: Floats,
    rivals: Floats,
    importance: Floats,
    strength: float,
    start: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats]:
    """Multinomial logistic regression with K learned outputs that compete with F given ones; L2 on the weights.

    inputs (N, r); targets (N, K + F), each row a distribution; rivals (N, F), −inf where one does not compete;
    importance (N,) of each example. Returns weights (r, K) and bias (K,) by L-BFGS: the problem is convex, and
    `start` only says where to begin.
    """
    size = inputs.shape[1]
    learned = targets.shape[1] - rivals.shape[1]
    share = importance / importance.sum()
    own, other = targets[:, :learned], targets[:, learned:]
    given = float((share[:, None] * np.where(other > 0, other * np.where(other > 0, rivals, 0.0), 0.0)).sum())

    def loss(values: Floats) -> tuple[float, Floats]:
        weights, bias = values[: size * learned].reshape(size, learned), values[size * learned :]
        outputs = inputs @ weights + bias
        total = logsumexp(np.concatenate([outputs, rivals], 1), axis=1, keepdims=True)
        error = share[:, None] * (np.exp(outputs - total) - own)
        amount = float((share * (total[:, 0] - (own * outputs).sum(1))).sum()) - given
        slope = np.concatenate([(inputs.T @ error + strength * weights).ravel(), error.sum(0)])
        return amount + strength / 2 * float((weights**2).sum()), slope

    begin = np.zeros((size + 1) * learned) if start is None else np.concatenate([part.ravel() for part in start])
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-5}).x
    return found[: size * learned].reshape(size, learned), found[size * learned :]
