"""What brings doubtful tasks to people first: a tab of the Data Manager sorted by score, and the stream's order."""

from __future__ import annotations

from typing import Any

from backend.connecting import UNCERTAIN
from backend.data_manager import Api, condition

TITLE = "Boxlift: doubtful first"
SEQUENTIAL = "Sequential sampling"
"""What a project has that nobody has set otherwise."""
TAB: dict[str, Any] = {
    "title": TITLE,
    "type": "list",
    "target": "tasks",
    "ordering": ["tasks:predictions_score"],
    "filters": {
        "conjunction": "and",
        "items": [
            condition(column, operator, 0)
            for column, operator in (
                ("total_predictions", "greater"),
                ("total_annotations", "equal"),
                ("cancelled_annotations", "equal"),
            )
        ],
    },
}
"""Tasks with predictions that nobody has annotated or skipped, least sure first; its "Label" buttons keep that."""


def doubtful_first(studio: Api, project: int, *, stream: bool = True) -> list[str]:
    """Make or repair the tab; with `stream`, let a project in Label Studio's own order show the least sure first.

    Returns what was done, in sentences. Every step is safe to repeat.
    """
    done = []
    path = f"api/dm/views?project={project}"
    tabs = studio.request("GET", path, f"tabs of project {project}")
    if not tabs:  # a first tab of ours would leave nothing that shows all tasks
        body: dict[str, Any] = {"project": project, "data": {"title": "Default", "type": "list", "target": "tasks"}}
        studio.request("POST", path, "the first tab", body)
    ours = [tab for tab in tabs if (tab.get("data") or {}).get("title") == TITLE]
    if not ours:
        studio.request("POST", path, f"the tab {TITLE!r}", {"project": project, "data": TAB})
        done.append(f"tab {TITLE!r} made in the Data Manager")
    elif any(ours[0]["data"].get(name) != TAB[name] for name in ("ordering", "filters")):
        body = {"project": project, "data": ours[0]["data"] | TAB}
        studio.request("PATCH", f"api/dm/views/{ours[0]['id']}?project={project}", f"the tab {TITLE!r}", body)
        done.append(f"tab {TITLE!r} repaired")
    about = f"api/projects/{project}"
    if stream and studio.request("GET", about, f"project {project}").get("sampling") == SEQUENTIAL:
        studio.request("PATCH", about, "the order of the label stream", {"sampling": UNCERTAIN})
        done.append("label stream: least sure first (--no-uncertainty leaves it as it is)")
    return done
