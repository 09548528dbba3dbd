"""Labelling configs: what a project wants boxed, and which of the network's classes that is."""

from backend.labelling.config import Control, Image, Label, Labelling, parse_config
from backend.labelling.files import read_text
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
    "Target",
    "match_labels",
    "parse_config",
    "read_text",
    "task_images",
    "with_own_labels",
]
