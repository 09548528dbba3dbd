"""What the tests of learning share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from blobs import PARAMETERS, blobs

from worker.learning import fit_regression, held_out_calibration, likeliest, study
from worker.parameters import Parameters


@pytest.fixture(scope="session")
def defaults() -> Parameters:
    """Parameters with a refiner and a score, chosen on photos of their own as the shipped ones are."""
    maps, truths = blobs(150, seed=50)
    photos = study(maps, PARAMETERS, truths)
    everything, goal = np.arange(len(photos)), likeliest(photos)
    return replace(
        PARAMETERS,
        regression=fit_regression(photos, everything, goal),
        calibration=held_out_calibration(photos, everything, goal),
    )
