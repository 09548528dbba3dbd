"""What chosen weights are worth on photos that had no part in choosing them."""

from __future__ import annotations

import numpy as np

from worker.boxes import Floats
from worker.evaluation.metrics import auroc
from worker.leaning import lean
from worker.learning.calibration import held_out_calibration, score_signs
from worker.learning.figures import centred, overlaps, reliability
from worker.learning.refiner import fit_regression
from worker.learning.study import Study
from worker.regression import chance, regress


def cross_validate(
    study: Study, goal: Floats, folds: int = 10, rounds: int = 2, *, below: float = 0.0
) -> dict[str, float]:
    """Figures of photos that had no part in choosing the weights, averaged over rounds of folds.

    `below` is the `Parameters.lean` of the boxes.
    """
    count = len(study)
    figures: dict[str, list[float]] = {}
    for seed in range(rounds):
        order = np.random.default_rng(seed).permutation(count)
        fit, hit, score = np.zeros(count), np.zeros(count, dtype=bool), np.zeros(count)
        for fold in range(folds):
            held, rest = order[fold::folds], np.setdiff1d(order, order[fold::folds])
            mine = regress(study.probes[held], fit_regression(study, rest, goal))
            score[held] = chance(score_signs(study, held, mine), held_out_calibration(study, rest, goal))
            mine = lean(mine, study.heat[held], score[held], below)
            fit[held], hit[held] = overlaps(mine, study, held), centred(mine, study, held)
        right = fit >= 0.5
        error = np.abs(reliability(score, right)).mean()
        for name, number in (
            ("corloc", right.mean()), ("mean_iou", fit.mean()), ("box_acc_70", (fit >= 0.7).mean()),
            ("center_hit", hit.mean()), ("score_auroc", auroc(score, right) or 0.0), ("calibration_error", error),
            ("class_probability_auroc", auroc(study.own.astype(np.float64), right) or 0.0),
        ):  # fmt: skip
            figures.setdefault(name, []).append(float(number))
    return {name: round(float(np.mean(numbers)), 4) for name, numbers in figures.items()}
