"""Labels of a project's own: a linear classifier on a network's features, learned from annotated photos.

photos with labelled boxes ──features──► examples ──train_head──► Head ──extended──► Network with further classes
"""

from worker.heads.features import features
from worker.heads.outputs import extended

__all__ = ["extended", "features"]
