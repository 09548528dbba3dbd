"""The few calls to Label Studio that set a project up and look at what it stored.

Plain HTTP on purpose: this is the outside view that `boxlift demo` and the end-to-end tests verify with, so it
shares nothing with the code that it verifies.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from worker.errors import StudioError

REFRESH_BEFORE = 30.0
"""Seconds before an access token's end (300 s after it was made) at which the next one is fetched."""


class PersonalToken(httpx.Auth):
    """A personal access token: exchanged for a bearer token that is good for five minutes, again and again."""

    requires_response_body = True

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._token = token
        self._access = ""
        self._until = 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the bearer token, after fetching one where there is none or it runs out."""
        if time.monotonic() > self._until:
            answer = yield httpx.Request("POST", f"{self._url}/api/token/refresh/", json={"refresh": self._token})
            if answer.status_code != 200:
                raise StudioError(f"{self._url} refused the personal access token (status {answer.status_code})")
            self._access = answer.json()["access"]
            self._until = time.monotonic() + 300.0 - REFRESH_BEFORE
        request.headers["Authorization"] = f"Bearer {self._access}"
        yield request


class StudioApi:
    """Label Studio at `url`, as the owner of `token` (a personal access token)."""

    def __init__(self, url: str, token: str, *, timeout: float = 120.0) -> None:
        self.url = url
        # Loopback or a named server: never through a proxy of the environment.
        self.http = httpx.Client(base_url=url, auth=PersonalToken(url, token), timeout=timeout, trust_env=False)

    def close(self) -> None:
        """Give the connections back."""
        self.http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """The JSON answer; None where there is none. Raises StudioError with Label Studio's own words."""
        try:
            answer = self.http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise StudioError(f"{method} {self.url}{path}: {type(error).__name__} {error}") from None
        if answer.is_error:
            words = answer.text[:500] if "json" in answer.headers.get("content-type", "") else answer.reason_phrase
            raise StudioError(f"{method} {self.url}{path} answered {answer.status_code}: {words}")
        return answer.json() if answer.content else None

    def projects(self) -> dict[str, int]:
        """Title → id of all projects."""
        answer = self.call("GET", "/api/projects/", params={"page_size": 1000})
        return {project["title"]: project["id"] for project in answer["results"]}

    def create_project(self, title: str, label_config: str, **settings: Any) -> int:
        """Make a project and return its id."""
        body = {"title": title, "label_config": label_config, **settings}
        return int(self.call("POST", "/api/projects/", json=body)["id"])

    def upload(self, project: int, files: Sequence[Path]) -> list[int]:
        """Upload image files as one task each; their task ids, in order."""
        with ExitStack() as stack:
            # Of parts with one name Label Studio keeps the last: each gets its own.
            parts = [
                (f"file{number}", (file.name, stack.enter_context(file.open("rb"))))
                for number, file in enumerate(files)
            ]
            answer = self.call(
                "POST",
                f"/api/projects/{project}/import",
                params={"return_task_ids": "true", "commit_to_project": "true"},
                files=parts,
            )
        return [int(task) for task in answer["task_ids"]]

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Import tasks by their data, e.g. [{"image": "http://…"}]; their ids, in order."""
        answer = self.call(
            "POST",
            f"/api/projects/{project}/import",
            params={"return_task_ids": "true"},
            json=[{"data": dict(data)} for data in tasks],
        )
        return [int(task) for task in answer["task_ids"]]

    def add_local_files(self, project: int, folder: Path, pattern: str = r".*\.(jpe?g|png|gif|webp)$") -> None:
        """Connect a folder below the local-files root, and make a task of each file in it."""
        body = {"project": project, "path": str(folder), "regex_filter": pattern, "use_blob_urls": True}
        storage = self.call("POST", "/api/storages/localfiles", json=body)
        self.call("POST", f"/api/storages/localfiles/{storage['id']}/sync", json={})

    def connect(self, project: int, backend_url: str, title: str, **settings: Any) -> dict[str, Any]:
        """Connect an ML backend, in place of any other, so that it is the one that is asked. Its description.

        `title` should be the model version: connecting makes it the project's own, which the Data Manager's
        score column goes by.
        """
        self.disconnect(project)
        body = {"project": project, "url": backend_url, "title": title, **settings}
        backend: dict[str, Any] = self.call("POST", "/api/ml/", json=body)
        if backend["state"] != "CO":
            raise StudioError(f"Label Studio could not connect {backend_url}: {backend.get('error_message')}")
        return backend

    def disconnect(self, project: int, keep: str = "") -> None:
        """Take a project's ML backends away, but the one at the address `keep`."""
        for other in self.call("GET", "/api/ml/", params={"project": project}):
            if other["url"] != keep:
                self.call("DELETE", f"/api/ml/{other['id']}")

    def tasks(self, project: int) -> list[dict[str, Any]]:
        """All tasks of a project with their data, without asking the backend for anything."""
        found: list[dict[str, Any]] = []
        page = 1
        while True:
            query = {"project": project, "page": page, "page_size": 500, "fields": "task_only"}
            answer = self.call("GET", "/api/tasks/", params=query)
            found.extend(answer["tasks"])
            if len(found) >= answer["total"] or not answer["tasks"]:
                return found
            page += 1

    def task(self, task: int) -> dict[str, Any]:
        """One task as its labelling page loads it; asks the backend where it has no prediction yet."""
        return dict(self.call("GET", f"/api/tasks/{task}/", params=None))

    def next_task(self, project: int) -> dict[str, Any]:
        """The label stream's next task, with predictions."""
        return dict(self.call("GET", f"/api/projects/{project}/next"))

    def retrieve_predictions(self, project: int, tasks: Iterable[int] | None = None) -> None:
        """The Data Manager's "Retrieve Predictions" for `tasks`, or for all."""
        chosen = {"all": True, "excluded": []} if tasks is None else {"all": False, "included": list(tasks)}
        self.call(
            "POST",
            "/api/dm/actions",
            params={"id": "retrieve_tasks_predictions", "project": project},
            json={"selectedItems": chosen},
        )

    def predictions(self, project: int, version: str | None = None) -> list[dict[str, Any]]:
        """Stored predictions of a project, of one model version or of all."""
        stored = self.call("GET", "/api/predictions/", params={"project": project})
        return [item for item in stored if version is None or item["model_version"] == version]
