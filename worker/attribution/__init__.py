"""Attribution of a classifier's logits: exact DeepLIFT and guided backpropagation in one pass each way."""

from worker.attribution.attributor import Attributor
from worker.attribution.choosing import Choice
from worker.attribution.precision import best_precision, describe_precision, parse_precision
from worker.attribution.result import Attribution
from worker.rules import Method

__all__ = [
    "Attribution",
    "Attributor",
    "Choice",
    "Method",
    "best_precision",
    "describe_precision",
    "parse_precision",
]
