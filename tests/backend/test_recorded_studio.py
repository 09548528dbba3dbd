"""What Label Studio was recorded to answer, read by what asks for it: every recording of its API is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from desk import VERSION, recordings
from recorded_studio import TOKEN, RecordedStudio, running

from backend.accepting import accept
from backend.cli import main
from backend.connecting import Wish, connect
from backend.corrections import read_task
from backend.drafts import worked_on, write_drafts
from backend.labelling import parse_config, task_images
from backend.studio import Studio
from worker.errors import StudioError

ELSEWHERE = {
    "ml-create-blocked-local-address",
    "webhooks-of-project",
    "ml-create-ok",
    "legacy-token-refused",
    "token-refresh",
}
"""Used in test_connecting.py."""
NEVER_ASKED = {
    "import-tasks-with-ids",
    "jwt-settings",
    "next-task",
    "prediction-create",
    "retrieve-predictions",
    "token-create-conflict",
}
"""What Boxlift never asks of Label Studio: people and their browsers do."""

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


@pytest.fixture
def server(shared: Path) -> Iterator[RecordedStudio]:
    with running(RecordedStudio(shared)) as server:
        yield server


def nobody_worked(server: RecordedStudio, **others: int) -> None:
    """No draft and no annotation on any task, but for the numbers that are given."""
    task = {"id": 70, "total_annotations": 0, "cancelled_annotations": 0, **others}
    server.say("GET", "/api/tasks", {"tasks": [task], "total": 1})
    server.say("GET", "/api/tasks/ID/drafts", [])


def draft_create(server: RecordedStudio, studio: Studio) -> None:
    made = server.recorded("draft-create")
    nobody_worked(server)
    assert write_drafts(studio, 63, [{"task": 70, "result": made["result"]}]) == 1
    server.say("GET", "/api/tasks/ID/drafts", [made | {"user": "another@example.com"}])
    assert worked_on(studio, 63, 70)
    assert write_drafts(studio, 63, [{"task": 70, "result": made["result"]}]) == 0


def import_predictions_one_invalid(server: RecordedStudio, studio: Studio) -> None:
    server.recorded("import-predictions-one-invalid")
    item = {"result": [], "score": 0.5, "model_version": VERSION}
    assert studio.import_predictions(63, [item | {"task": 71}, item | {"task": 72}]) == 1


def import_predictions_unknown_task(server: RecordedStudio, studio: Studio) -> None:
    server.recorded("import-predictions-unknown-task")
    with pytest.raises(StudioError, match="99999999") as raised:
        studio.import_predictions(63, [{"task": 99999999, "result": [], "score": 0.5, "model_version": VERSION}])
    assert raised.value.status == 400


def pat_as_bearer_refused(server: RecordedStudio, studio: Studio) -> None:
    server.say("GET", "/api/projects/ID", server.recorded("pat-as-bearer-refused"), 401)
    with pytest.raises(StudioError, match="personal access token"):
        studio.project(63)


def ml_patch_without_url(server: RecordedStudio, studio: Studio) -> None:
    """What this version answers with 500 is never asked: every change of a connection carries its address."""
    refused = server.recorded("ml-patch-without-url")
    with pytest.raises(StudioError, match="Label Studio's log"):
        studio.request("PATCH", "api/ml/69", "a change", {"title": "only the title"})
    assert "healthcheck_" in refused["detail"]
    server.recorded("project")
    connection = server.recorded("ml-create-ok")
    server.say("GET", "/api/ml/", [connection])
    server.say("PATCH", "/api/ml/ID", connection)
    server.say("PATCH", "/api/projects/ID", {"id": 63})
    server.recorded("webhooks-of-project")
    server.say("PATCH", "/api/webhooks/ID", {"id": 56})
    server.say("GET", "/api/projects/ID/model-versions", {})
    connect(studio, 63, VERSION, Wish(connection["url"]))
    assert all("url" in sent for path, sent in server.sent("PATCH", "/api/ml/") if sent["title"] == VERSION)
    assert any(sent["title"] == VERSION for _, sent in server.sent("PATCH", "/api/ml/"))


def model_versions(server: RecordedStudio, studio: Studio) -> None:
    """The answer with `?extended=true`; without, as it is asked here, it is the plain counts."""
    [one] = server.recorded("model-versions")["static"]
    server.say("GET", "/api/projects/ID/model-versions", {one["model_version"]: one["count"]})
    assert studio.versions(63) == {"stub-v1": 2}


def task_with_prediction_and_draft(server: RecordedStudio, studio: Studio) -> None:
    """A task as a page loads it: its picture is where the config says, and its draft is nobody's correction yet."""
    task = server.recorded("task-with-prediction-and-draft")
    tag = '<RectangleLabels name="label" toName="image"><Label value="Dog"/></RectangleLabels>'
    labelling = parse_config(f'<View><Image name="image" value="$image"/>{tag}</View>')
    [image] = task_images(task["data"], labelling)
    assert image.url == task["data"]["image"]
    assert task["drafts"]
    assert read_task(task | {"annotations": []}, labelling) is None


def predictions_of_task(server: RecordedStudio, studio: Studio) -> None:
    found = server.recorded("predictions-of-task")
    nobody_worked(server)
    version, score = found[0]["model_version"], found[0]["score"]
    assert accept(studio, 63, version, score, write=False).accepted == 1
    assert accept(studio, 63, version, score + 0.001, write=False).doubtful == 1
    assert accept(studio, 63, "another", 0.0, write=False).accepted == 0
    # Another user's draft, and a skipped task, are somebody's work.
    server.say("GET", "/api/tasks/ID/drafts", [{"id": 1, "user": "another@example.com"}])
    assert accept(studio, 63, version, 0.0, write=True).untouched == 1
    nobody_worked(server, cancelled_annotations=1)
    assert accept(studio, 63, version, 0.0, write=True).untouched == 1
    assert server.sent("POST") == []


def project_unknown_model_version(server: RecordedStudio, studio: Studio) -> None:
    server.recorded("project-unknown-model-version")
    with pytest.raises(StudioError, match="doesn't exist") as raised:
        studio.set_model_version(63, "unknown")
    assert raised.value.status == 400


def project(server: RecordedStudio, studio: Studio) -> None:
    recorded = server.recorded("project")
    found = studio.project(63)
    assert (found.label_config, found.model_version) == (recorded["label_config"], recorded["model_version"])
    [control] = parse_config(str(found.label_config)).controls
    assert control.labels[1].predicted_values == ("tabby", "tiger cat")


USES: dict[str, Callable[[RecordedStudio, Studio], None]] = {
    use.__name__.replace("_", "-"): use
    for use in (
        draft_create,
        import_predictions_one_invalid,
        import_predictions_unknown_task,
        pat_as_bearer_refused,
        ml_patch_without_url,
        model_versions,
        task_with_prediction_and_draft,
        predictions_of_task,
        project_unknown_model_version,
        project,
    )
}


@pytest.mark.parametrize("name", USES)
def test_a_recorded_answer_is_understood(name: str, server: RecordedStudio, studio: Studio) -> None:
    USES[name](server, studio)


def test_every_recorded_answer_is_used(shared: Path) -> None:
    assert {name.removeprefix("api-") for name, _ in recordings(shared, "api")} == ELSEWHERE | NEVER_ASKED | set(
        USES
    )


def accepting(server: RecordedStudio, *more: str) -> Result:
    arguments = ["accept", "--project", "63", "--score", "0", "--yes", *more]
    return CliRunner().invoke(main, arguments, env={"LABEL_STUDIO_URL": server.url, "LABEL_STUDIO_API_KEY": TOKEN})


def test_only_versions_of_boxlift_are_accepted_unasked(server: RecordedStudio) -> None:
    """The project may show the scores of somebody else's model."""
    server.recorded("project", model_version="yolo-1")
    server.say("GET", "/api/predictions", [])
    refused = accepting(server)
    assert refused.exit_code == 2
    assert "yolo-1" in refused.output
    assert "--version" in refused.output
    assert accepting(server, "--version", "yolo-1").exit_code == 0
    server.recorded("project", model_version="")
    assert accepting(server).exit_code == 2
    server.recorded("project", model_version=VERSION)
    assert accepting(server).exit_code == 0
