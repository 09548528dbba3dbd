"""Lists of tasks as Label Studio's Data Manager gives them: filters, and page after page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlencode


class Api(Protocol):
    """What reading and writing tasks needs of `backend.studio.Studio`. May raise StudioError."""

    def request(self, method: str, path: str, doing: str, body: object = None) -> Any: ...


def condition(column: str, operator: str, value: object, kind: str = "Number") -> dict[str, object]:
    """One line of a filter."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def query(*conditions: Mapping[str, object], any_of: bool = False, ordering: Sequence[str] = ()) -> str:
    """A filter of all, or any, of the conditions, as requests carry it."""
    filters = {"conjunction": "or" if any_of else "and", "items": list(conditions)}
    return json.dumps({"filters": filters} | ({"ordering": list(ordering)} if ordering else {}))


def pages(studio: Api, asked: Mapping[str, object], doing: str) -> Iterator[Mapping[str, Any]]:
    """All tasks that a list holds, `asked` its parameters with their `page_size`; `doing` says what they are."""
    page, seen = 1, 0
    while True:
        where = urlencode({**asked, "page": page, "fields": "all"})
        answer = studio.request("GET", f"api/tasks?{where}", doing)
        yield from answer["tasks"]
        seen += len(answer["tasks"])
        if not answer["tasks"] or seen >= answer["total"]:
            return
        page += 1
