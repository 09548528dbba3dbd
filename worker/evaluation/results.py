"""From runs to figures with intervals, ours beside the others, and the document that `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.evaluation.bootstrap import Draws, compared, draws, intervals
from worker.evaluation.groups import Group
from worker.evaluation.metrics import Matches, columns
from worker.evaluation.run import Run


def measure(runs: Sequence[Run], matches: Matches) -> dict[str, dict[str, Any]]:
    """By method: `figures`, their `intervals`, and for all but the first run, which is ours, how ours compares.

    Every run has the same samples in the same order. Raises ValueError where there are none.
    """
    if not runs or not runs[0].outcomes:
        raise ValueError("there is nothing to measure: no photo could be read")
    results: dict[str, dict[str, Any]] = {}
    ours: tuple[dict[str, float | None], Draws] | None = None
    for one in runs:
        table = columns(one.outcomes, matches)
        figures, drawn = table.figures(), draws(table)
        results[one.method] = {
            "figures": figures | {"seconds_per_image": one.seconds_per_image},
            "intervals": intervals(drawn),
        }
        if ours is None:
            ours = figures, drawn
        else:
            results[one.method] |= compared(ours[0], figures, ours[1], drawn)
    return results


def document(
    dataset: str,
    runs: Sequence[Run],
    results: Mapping[str, Mapping[str, Any]],
    *,
    classes: Sequence[Group],
    strata: Sequence[Group],
    left_out: Mapping[str, str],
) -> dict[str, Any]:
    """Plain values, ready for JSON; null where a data set or method says nothing."""
    ours = runs[0]
    return {
        "dataset": dataset,
        "photos": len(ours.outcomes),
        "photos_without_objects": sum(not one.sample.objects for one in ours.outcomes),
        "failed": [{"image": one.sample.path.name, "error": one.error} for one in ours.failed],
        "method": ours.method,
        **results[ours.method]["figures"],
        "intervals": results[ours.method]["intervals"],
        "per_class": [{"label": row.name, **_without_name(row)} for row in classes],
        "strata": [{"objects_that": row.name, **_without_name(row)} for row in strata],
        "compare": {
            one.method: {
                **results[one.method]["figures"],
                "intervals": results[one.method]["intervals"],
                "ours_minus": results[one.method]["ours_minus"],
                "f1_ratio": results[one.method]["f1_ratio"],
                "threshold": one.threshold,
                "note": one.note,
            }
            for one in runs[1:]
        },
        "left_out": [{"method": name, "reason": why} for name, why in left_out.items()],
    }


def _without_name(row: Group) -> dict[str, Any]:
    values = row.to_dict()
    del values["name"]
    return values
