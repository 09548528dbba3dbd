"""What can be learned from photos with known boxes: the weights of the box and of its score.

photos ──network, once──► Maps ──parameters──► Study ──► regression, calibration
                                                 └──► figures of photos that had no part in it
"""

from __future__ import annotations

from worker.learning.calibration import fit_calibration, held_out_calibration, score_signs
from worker.learning.extras import Candidates, candidates, chosen, fit_extra
from worker.learning.figures import centred, overlaps, reliability
from worker.learning.goals import Goals, likeliest
from worker.learning.maps import Maps, map_photos
from worker.learning.refiner import fit_regression
from worker.learning.study import Study, study
from worker.learning.validation import cross_validate

__all__ = [
    "Candidates",
    "Goals",
    "Maps",
    "Study",
    "candidates",
    "centred",
    "chosen",
    "cross_validate",
    "fit_calibration",
    "fit_extra",
    "fit_regression",
    "held_out_calibration",
    "likeliest",
    "map_photos",
    "overlaps",
    "reliability",
    "score_signs",
    "study",
]
