"""The convex problem behind a head: which label a crop shows, in competition with what the network knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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
        return product(seen.astype(np.float64), self.weight.T) + self.bias


@dataclass(frozen=True, eq=False)
class Space:
    """The directions in which features differ, as few as there are.

    Features (N, D) and the logits that follow from them (N, C) count alike, each with half of the variance: what
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
        logits = product(values, last.weight.T)
        one, other = (SPREAD / np.sqrt(2 * max(part.var(0).sum(), _SMALLEST)) for part in (values, logits))
        gram = product(one**2 * values, values.T) + product(other**2 * logits, logits.T)
        strengths, vectors = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(gram)))
        kept = np.flatnonzero(strengths > strengths[-1] * _SMALLEST)[-_MOST:]
        vectors = vectors[:, kept] / np.sqrt(strengths[kept])
        of_logits = product(logits.T, other**2 * vectors)
        axes = product(values.T, one**2 * vectors) + product(last.weight.T, of_logits)
        return cls(centre, axes)

    def coordinates(self, seen: npt.NDArray[np.floating]) -> Floats:
        """(N, D) → (N, r)."""
        return product(seen.astype(np.float64) - self.centre, self.axes)

    def folded(self, weights: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """A linear function of coordinates, (r, K) and (K,), as one of features: (K, D) and (K,)."""
        of_features = product(self.axes, weights).T
        return of_features, bias - product(of_features, self.centre)


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
    learned = targets.shape[1] - rivals.shape[1]
    x, wanted, given = (torch.from_numpy(np.ascontiguousarray(part)) for part in (inputs, targets, rivals))
    share = torch.from_numpy(importance / importance.sum())[:, None]
    compete = wanted[:, learned:] > 0
    begin = (np.zeros((inputs.shape[1], learned)), np.zeros(learned)) if start is None else start
    weights, bias = (torch.tensor(part, requires_grad=True) for part in begin)
    search = torch.optim.LBFGS(
        [weights, bias],
        max_iter=500,
        max_eval=600,
        history_size=20,
        tolerance_grad=1e-6,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        with torch.no_grad():
            outputs = x @ weights + bias
            total = torch.logsumexp(torch.cat([outputs, given], 1), 1, keepdim=True)
            error = share * ((outputs - total).exp() - wanted[:, :learned])
            weights.grad, bias.grad = x.T @ error + strength * weights, error.sum(0)
            spoken = (wanted[:, :learned] * outputs).sum(1, keepdim=True)
            spoken += (wanted[:, learned:] * given.where(compete, 0.0)).sum(1, keepdim=True)
            return (share * (total - spoken)).sum() + strength / 2 * weights.square().sum()

    search.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach().numpy(), bias.detach().numpy()


@contextmanager
def one_thread() -> Iterator[None]:
    """Products by one thread meanwhile. They are many and small: on a busy machine two threads, which wait for each
    other every time, take twenty times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def product(a: Floats, b: Floats) -> Floats:
    """a @ b by torch, which heeds `one_thread`; numpy would not."""
    return np.asarray((torch.from_numpy(a) @ torch.from_numpy(b)).numpy())
