"""Photos without a network: maps with one warm object each, and what people would draw around it."""

from __future__ import annotations

import numpy as np

from worker.boxes import Floats
from worker.learning import Maps
from worker.parameters import GUIDED, Parameters, Source

PARAMETERS = Parameters(sources=(Source("inner", sigma=0.03), Source(GUIDED, sigma=0.03, part="absolute")))
CLASSES = 5


def blobs(count: int, *, seed: int = 0, noise: float = 0.15) -> tuple[Maps, list[Floats]]:
    """Maps of `count` photos, and the boxes (1, 4) of their objects: heat is strongest in the middle of each."""
    random = np.random.default_rng(seed)
    middle, side = random.uniform(0.3, 0.7, (count, 2)), random.uniform(0.2, 0.5, (count, 2))
    low, high = np.clip(middle - side / 2, 0, 1), np.clip(middle + side / 2, 0, 1)
    truths = [np.array([[*a, *b]]) for a, b in zip(low, high, strict=True)]
    sources = {}
    for name, size in (("inner", 14), (GUIDED, 56)):
        at = (np.arange(size) + 0.5) / size
        x = ((at[None] - middle[:, :1]) / side[:, :1]) ** 2
        y = ((at[None] - middle[:, 1:]) / side[:, 1:]) ** 2
        warm = np.exp(-4 * (y[:, :, None] + x[:, None, :])) + noise * random.random((count, size, size))
        sources[name] = (warm / warm.max((1, 2), keepdims=True)).astype(np.float16)
    logits = random.normal(size=(count, CLASSES)).astype(np.float32)
    return Maps(logits, logits.argmax(1), sources), truths


def scaled(truths: list[Floats], factor: float) -> list[Floats]:
    """The boxes of people who draw so much wider and taller."""
    found = []
    for boxes in truths:
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * factor
        found.append(np.clip(np.concatenate([middle - half, middle + half], 1), 0, 1))
    return found
