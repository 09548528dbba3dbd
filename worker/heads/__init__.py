"""Labels of a project's own: a linear classifier on a network's features, learned from annotated photos.

photos with labelled boxes ──examples──► features ──train_head──► Head ──extended──► Network with further classes
"""

from worker.heads.competition import Competition
from worker.heads.examples import Example, examples
from worker.heads.features import features
from worker.heads.fitting import LastLayer
from worker.heads.outputs import extended, last_layer
from worker.heads.training import Learned, Share, train_head

__all__ = [
    "Competition",
    "Example",
    "LastLayer",
    "Learned",
    "Share",
    "examples",
    "extended",
    "features",
    "last_layer",
    "train_head",
]
