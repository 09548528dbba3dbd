"""Labelling configs: what a project wants boxed, and which of the network's classes that is."""

from backend.labelling.config import Control, Image, Label, Labelling, SmartTag, parse_config
from backend.labelling.matching import ONLY_LABEL, SKIP, LabelMap, Target, match_labels
from backend.labelling.own import with_own_labels
from backend.labelling.tasks import task_images

__all__ = [
    "ONLY_LABEL",
    "SKIP",
    "Control",
    "Image",
    "Label",
    "LabelMap",
    "Labelling",
    "SmartTag",
    "Target",
    "match_labels",
    "parse_config",
    "task_images",
    "with_own_labels",
]
