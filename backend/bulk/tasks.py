"""A project's tasks as the Data Manager lists them, also those of one of its tabs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backend.data_manager import Api, condition, pages, query
from worker.errors import StudioError

PAGE = 500
"""Tasks in one request."""
RESULTS_PAGE = 100
"""Tasks in one request that come with all their predictions."""
_FIELDS = "id,data,predictions_model_versions,total_annotations,cancelled_annotations"


@dataclass(frozen=True)
class Row:
    """One task in the list."""

    id: int
    data: Mapping[str, Any]
    versions: frozenset[str]
    """Of its stored predictions."""
    annotated: bool
    """Whether somebody has annotated or skipped it."""


def view_number(studio: Api, project: int, view: str) -> int:
    """The number of a Data Manager tab, by its number or title. Raises StudioError that lists those there are."""
    found = studio.request("GET", f"api/dm/views?project={project}", f"tabs of project {project}")
    titles = {int(item["id"]): str((item.get("data") or {}).get("title") or "") for item in found}
    matching = [number for number, title in titles.items() if title == view]
    if view.isdecimal() and int(view) in titles:
        matching = [int(view)]
    if len(matching) != 1:
        there = ", ".join(f"{number} ({title})" for number, title in titles.items()) or "none"
        which = "is the title of several tabs" if matching else "is none of its tabs"
        raise StudioError(f"{view!r} {which} of project {project}: choose by number; there are {there}")
    return matching[0]


def list_tasks(studio: Api, project: int, view: int | None = None) -> Iterator[Row]:
    """All tasks of a project, or those that a tab's filters let through, in its order."""
    where = {"project": project} if view is None else {"view": view}
    asked = where | {"page_size": PAGE, "include": _FIELDS}
    yield from map(_row, pages(studio, asked, f"tasks of project {project}"))


def among(studio: Api, project: int, tasks: Iterable[int]) -> Iterator[tuple[Row, list[Mapping[str, Any]]]]:
    """Those of the tasks that are still there, as they are at this moment, each with its stored predictions."""
    wanted = sorted(set(tasks))
    for start in range(0, len(wanted), RESULTS_PAGE):
        part = wanted[start : start + RESULTS_PAGE]
        # A range of numbers is all that the filter can say.
        these = query(condition("id", "in", {"min": part[0], "max": part[-1]}))
        asked = {"project": project, "query": these, "page_size": RESULTS_PAGE, "include": f"{_FIELDS},predictions"}
        for task in pages(studio, asked, f"tasks of project {project}"):
            if int(task["id"]) in part:
                yield _row(task), list(task.get("predictions") or ())


def _row(task: Mapping[str, Any]) -> Row:
    versions = (part.strip() for part in str(task.get("predictions_model_versions") or "").split(","))
    annotations = (task.get("total_annotations") or 0) + (task.get("cancelled_annotations") or 0)
    return Row(int(task["id"]), task.get("data") or {}, frozenset(filter(None, versions)), annotations > 0)
