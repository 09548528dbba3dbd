"""Label Studio's API, as far as Boxlift uses it: thin over label_studio_sdk, with errors that say what to do.

Personal access tokens are refreshed by the SDK; legacy tokens are used as they are where the server allows them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
from label_studio_sdk import LabelStudio
from label_studio_sdk.core.api_error import ApiError

from backend.data_manager import condition, query
from backend.tokens import renew_in_time
from worker.errors import StudioError

if TYPE_CHECKING:
    from label_studio_sdk.projects.client_ext import ProjectExt
    from label_studio_sdk.types import MlBackend, Webhook

T = TypeVar("T")
PAGE = 1000
"""Tasks, or predictions, in one request."""

_ADVICE = {
    401: "check LABEL_STUDIO_API_KEY: copy a personal access token from Account & Settings; legacy tokens are off "
    "unless the organization allows them",
    403: "the token's user may not do this, or the server does not allow this address",
    404: "check LABEL_STUDIO_URL and the project's number",
    429: "Label Studio asks for fewer requests; it is tried again later",
}


@contextmanager
def _said(doing: str, where: str) -> Iterator[None]:
    """Turn whatever the SDK raises into a StudioError without tokens or headers in it."""
    try:
        yield
    except ApiError as error:
        status = error.status_code or 0
        advice = _ADVICE.get(status, "see Label Studio's log" if status >= 500 else "correct what it names")
        reason = _detail(error.body)
        raise StudioError(f"Label Studio at {where} refused {doing}: {status}{reason}; {advice}", status) from None
    except httpx.TimeoutException:
        raise StudioError(f"Label Studio at {where} did not answer in time for {doing}") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise StudioError(
            f"Label Studio at {where} cannot be reached for {doing} ({type(error).__name__}): "
            "check LABEL_STUDIO_URL and that it runs"
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # pydantic's errors are ValueErrors
        raise StudioError(
            f"{where} does not answer like Label Studio for {doing} ({type(error).__name__}): "
            "check LABEL_STUDIO_URL"
        ) from None


def _detail(body: Any) -> str:
    """What Label Studio says about an error, in short."""
    if isinstance(body, Mapping):
        told = body.get("validation_errors") or body.get("detail")
        if told:
            return f" ({json.dumps(told, ensure_ascii=False) if not isinstance(told, str) else told})"[:300]
    return ""


class Studio:
    """One Label Studio server and a token for it. Every method may raise StudioError. Safe between threads."""

    def __init__(self, url: str, token: str, *, timeout: float = 30.0) -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise StudioError("LABEL_STUDIO_URL must be an address like http://localhost:8080")
        if not token:
            raise StudioError("LABEL_STUDIO_API_KEY is not set: copy an access token from Account & Settings")
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
        self._token = token
        self._timeout = timeout

    @functools.cached_property
    def sdk(self) -> LabelStudio:
        """The SDK's own client, for calls that this class does not wrap."""
        with _said("reading the access token", self.url):
            sdk = LabelStudio(base_url=self.url, api_key=self._token, timeout=self._timeout)  # type: ignore[no-untyped-call]
            renew_in_time(sdk, self.url, self._token)
            return sdk

    def close(self) -> None:
        """Give the connections back."""
        if "sdk" in vars(self):
            self.sdk._client_wrapper.httpx_client.httpx_client.close()

    def ping(self) -> str:
        """Version of the server. Needs no token."""
        return str(self.call("its version", lambda: self.sdk.versions.get().release))

    def user(self) -> str:
        """E-mail address of the token's user: a call that only a good token survives."""
        return str(self.call("the token's user", lambda: self.sdk.users.whoami().email))

    def headers(self) -> dict[str, str]:
        """The Authorization header of a request to this server, refreshed if need be: for fetching images."""
        headers = self.call("a fresh access token", lambda: self.sdk._client_wrapper.get_headers())
        return {"Authorization": headers["Authorization"]}

    def project(self, project: int) -> ProjectExt:
        """A project with its labelling config and model_version."""
        return self.call(f"project {project}", lambda: self.sdk.projects.get(id=project))

    def set_model_version(self, project: int, version: str) -> None:
        """Make a version the project's own: its scores are those that the Data Manager shows and sorts by.

        Label Studio refuses (StudioError, status 400) a version that is neither the title of a connected backend
        nor that of a stored prediction.
        """
        self.call(
            f"model version {version} for project {project}",
            lambda: self.sdk.projects.update(id=project, model_version=version),
        )

    def task_data(self, project: int, tasks: Iterable[int]) -> dict[int, Mapping[str, Any]]:
        """The data of those of the tasks that are in the project, by number."""
        wanted = sorted(set(tasks))
        found: dict[int, Mapping[str, Any]] = {}
        start = 0
        for end in range(1, len(wanted) + 1):
            # One query for tasks that are close together: a range of numbers is all that the filter can say.
            if end == len(wanted) or end - start == PAGE or wanted[end] - wanted[end - 1] > PAGE:
                found |= self._task_data(project, wanted[start], wanted[end - 1])
                start = end
        return {task: found[task] for task in wanted if task in found}

    def _task_data(self, project: int, first: int, last: int) -> dict[int, Mapping[str, Any]]:
        these = query(condition("id", "in", {"min": first, "max": last}))

        def data() -> dict[int, Mapping[str, Any]]:
            pages: Iterable[Any] = self.sdk.tasks.list(
                project=project, query=these, include="id,data", page_size=PAGE
            )
            return {task.id: task.data for task in pages}

        return self.call(f"tasks of project {project}", data)

    def predicted(self, project: int, version: str, tasks: Iterable[int]) -> set[int]:
        """Those of the tasks that have a prediction of this version already."""
        wanted = sorted(set(tasks))
        found: set[int] = set()
        for start in range(0, len(wanted), PAGE):
            part = wanted[start : start + PAGE]
            found |= self._predicted(project, version, part[0], part[-1])
        return found.intersection(wanted)

    def _predicted(self, project: int, version: str, first: int, last: int) -> set[int]:
        these = query(
            condition("id", "in", {"min": first, "max": last}),
            condition("predictions_model_versions", "contains", [version], "List"),
        )

        def ids() -> set[int]:
            fields = "id,predictions_model_versions"
            pages: Iterable[Any] = self.sdk.tasks.list(project=project, query=these, include=fields, page_size=PAGE)
            # The filter takes parts of versions too.
            return {task.id for task in pages if version in str(task.predictions_model_versions).split(",")}

        return self.call(f"tasks of project {project} with predictions", ids)

    def import_predictions(self, project: int, predictions: Sequence[Mapping[str, Any]]) -> int:
        """Store predictions ({task, result, score, model_version}) in bulk. Returns how many were created.

        Label Studio drops those that do not fit its labelling config and says so only by a smaller number. Sent
        once: where no answer comes, they may be stored all the same.
        """
        from label_studio_sdk.types import PredictionRequest

        created = 0
        for start in range(0, len(predictions), PAGE):
            part = [PredictionRequest(**item) for item in predictions[start : start + PAGE]]
            call = functools.partial(
                self.sdk.projects.import_predictions, id=project, request=part, request_options={"max_retries": 0}
            )
            created += self.call(f"{len(part)} predictions for project {project}", call).created or 0
        return created

    def backends(self, project: int) -> list[MlBackend]:
        """ML backends connected to a project."""
        return self.call(f"backends of project {project}", lambda: self.sdk.ml.list(project=project))

    def webhooks(self, project: int) -> list[Webhook]:
        """Webhooks of a project."""
        return self.call(f"webhooks of project {project}", lambda: self.sdk.webhooks.list(project=str(project)))

    def versions(self, project: int) -> dict[str, int]:
        """Model versions of a project's stored predictions → how many there are."""
        found = self.request("GET", f"api/projects/{project}/model-versions", f"versions of project {project}")
        return {str(version): int(count) for version, count in found.items()}

    def delete_predictions(self, project: int, version: str) -> None:
        """Delete all predictions of one version; annotations made from them stay."""
        path, doing = f"api/projects/{project}/model-versions", f"the deletion of predictions {version}"
        self.request("DELETE", path, doing, {"model_version": version})

    def request(self, method: str, path: str, doing: str, body: object = None) -> Any:
        """A call that the SDK has no method for. Returns the answer's JSON, None if it has none."""

        def send() -> Any:
            answer = self.sdk._client_wrapper.httpx_client.request(path, method=method, json=body)
            told = answer.json() if answer.content else None
            if not answer.is_success:
                raise ApiError(status_code=answer.status_code, body=told)
            return told

        return self.call(doing, send)

    def call(self, doing: str, call: Callable[[], T]) -> T:
        """Call something of `sdk`, with StudioError for whatever goes wrong; `doing` says what, as a noun."""
        _ = self.sdk  # made before: its own errors say what it was doing
        with _said(doing, self.url):
            return call()
