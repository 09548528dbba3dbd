"""What a run over a data set came to: counts, reasons, boxes for each label, and how the scores are spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BINS = 10
"""Of the histogram of scores: tenths."""


@dataclass
class Summary:
    """Counts of one run. `add` and `fail` fill it."""

    version: str
    total: int
    """Tasks that were to be predicted."""
    already: int = 0
    """Further tasks that had their prediction before."""
    done: int = 0
    """Tasks with a prediction now, empty ones included."""
    empty: int = 0
    """Of these, tasks in which nothing was found."""
    failures: dict[str, str] = field(default_factory=dict)
    """Task or photo → why it has no prediction."""
    warnings: list[str] = field(default_factory=list)
    labels: Counter[str] = field(default_factory=Counter)
    scores: list[int] = field(default_factory=lambda: [0] * BINS)
    """Boxes by score, in tenths from 0 to 1."""
    seconds: float = 0.0
    """From the first request to the last outcome."""
    computed: int = 0
    """Of `done` and `failures`, those that this run waited for: an earlier one had done the others."""

    def add(self, result: Sequence[Mapping[str, Any]]) -> None:
        """Count a task's prediction by its result, in Label Studio's form."""
        self.done += 1
        self.empty += not self.count(result)

    def count(self, result: Sequence[Mapping[str, Any]]) -> int:
        """Count labels and scores of a prediction, and nothing else. Returns how many boxes it has."""
        boxes = {(item["id"], item["to_name"], item.get("item_index")): item for item in result}
        for item in result:
            for label in item["value"].get("rectanglelabels") or item["value"].get("labels") or ():
                self.labels[label] += 1
        for item in boxes.values():
            self.scores[min(BINS - 1, int(BINS * float(item.get("score") or 0.0)))] += 1
        return len(boxes)

    def fail(self, what: str, reason: str) -> None:
        """Note why a task has no prediction."""
        self.failures[what] = reason

    @property
    def failed(self) -> int:
        """Tasks without a prediction."""
        return len(self.failures)

    @property
    def rate(self) -> float:
        """Tasks a second that this run did; 0 where it did none."""
        return self.computed / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "version": self.version,
            "total": self.total,
            "already": self.already,
            "done": self.done,
            "empty": self.empty,
            "failed": self.failed,
            "failures": self.failures,
            "warnings": self.warnings,
            "labels": dict(self.labels.most_common()),
            "scores": self.scores,
            "seconds": round(self.seconds, 2),
            "computed": self.computed,
            "rate": round(self.rate, 3),
        }
