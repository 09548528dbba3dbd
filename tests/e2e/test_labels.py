"""Whatever labels and photos a project has: kinds, synonyms, labels that nothing reaches, folders, two objects."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import redis

from backend.demo.photos import photos
from backend.demo.stack import Stack
from backend.demo.studio_api import StudioApi

from .project import NewProject, Project
from .test_integration import SMART, backend, boxlift, until

PHOTOS = {photo.file: photo for photo in photos()}
PANDA, KOALA, DOG, ICE_BEAR = "panda.jpg", "koala.jpg", "dog.jpg", "polar-bear.jpg"


def config(*labels: str, more: str = "") -> str:
    tags = "".join(label if label.startswith("<") else f'<Label value="{label}"/>' for label in labels)
    boxes = f'<RectangleLabels name="label" toName="image">{tags}</RectangleLabels>'
    return f'<View><Image name="image" value="$image"/>{boxes if labels else ""}{more}</View>'


def labels_of(project: Project, tasks: list[int]) -> list[list[str]]:
    """The labels of each task's boxes, once all are there."""
    stored = project.wait_for(tasks)
    return [[item["value"]["rectanglelabels"][0] for item in stored[task][0]["result"]] for task in tasks]


def test_two_projects_at_once_do_not_mix(new_project: NewProject, studio: StudioApi) -> None:
    """The same photos under other labels, asked for at the same time."""
    pandas, bears = '<Label value="Panda" predicted_values="giant panda"/>', '<Label value="Koala"/>'
    projects = [new_project(config(pandas), title="pandas"), new_project(config(bears), title="koalas")]
    names = [PANDA, KOALA] * 3
    tasks = [studio.upload(project.id, [PHOTOS[name].path for name in names]) for project in projects]
    asking = [threading.Thread(target=project.retrieve) for project in projects]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    for project, numbers, label in zip(projects, tasks, ("Panda", "Koala"), strict=True):
        found = labels_of(project, numbers)
        assert {name for names in found for name in names} == {label}


def test_kinds_synonyms_and_what_nothing_reaches(new_project: NewProject, studio: StudioApi, stack: Stack) -> None:
    xml = config("Dog", "Polar bear", "Vehicle", "Snark")
    project = new_project(xml)
    told = boxlift(stack, "labels", "--project", str(project.id))
    assert told["unreachable"] == ["Snark"]
    assert all(told["labels"][label] for label in ("Dog", "Polar bear", "Vehicle"))
    setup = httpx.post(f"{stack.backend_url}/setup", json={"project": project.id, "schema": xml}, trust_env=False)
    assert '"Snark"' in setup.json()["message"]
    tasks = studio.upload(project.id, [PHOTOS[name].path for name in (DOG, ICE_BEAR)])
    project.retrieve()
    assert labels_of(project, tasks) == [["Dog"], ["Polar bear"]]


def test_a_config_without_rectangles_is_told_at_setup(
    new_project: NewProject, studio: StudioApi, stack: Stack
) -> None:
    """Label Studio connects it all the same: its owner reads why there is nothing."""
    xml = config(more='<Choices name="c" toName="image"><Choice value="Cat"/></Choices>')
    project = new_project(xml)
    [connection] = studio.call("GET", "/api/ml/", params={"project": project.id})
    assert (connection["state"], connection["error_message"]) == ("CO", None)
    stored = studio.call("GET", f"/api/projects/{project.id}/")["label_config"]
    setup = httpx.post(
        f"{stack.backend_url}/setup", json={"project": project.id, "schema": stored}, trust_env=False
    )
    assert setup.json()["model_version"] == project.version
    assert "no RectangleLabels tag" in setup.json()["message"]


def test_the_only_label_takes_what_no_label_takes(
    studio: StudioApi, stack: Stack, version: str, tmp_path: Path
) -> None:
    xml = config("Defect")
    number = studio.create_project("only label", xml)
    tasks = studio.upload(number, [PHOTOS[PANDA].path])
    with backend(stack, tmp_path, BOXLIFT_UNMATCHED="only-label") as url:
        boxlift(stack, "connect", "--project", str(number), "--url", url)
        studio.retrieve_predictions(number)
        project = Project(stack, studio, number, version)
        assert labels_of(project, tasks) == [["Defect"]]


def test_folders_of_the_workers_machine(new_project: NewProject, studio: StudioApi, image_root: Path) -> None:
    """A task that names a file by its path: readable in a folder that was allowed, and nowhere else."""
    project = new_project()
    inside, outside = image_root / "panda.jpg", image_root.parent / "outside.jpg"
    for file in (inside, outside):
        file.write_bytes(PHOTOS[PANDA].path.read_bytes())
    [good, bad] = studio.import_tasks(project.id, [{"image": str(inside)}, {"image": str(outside)}])
    project.retrieve()
    assert labels_of(project, [good]) == [["Panda"]]
    assert bad not in project.predictions()


def test_a_second_click_costs_no_network(stack: Stack, studio: StudioApi) -> None:
    number = studio.create_project("two clicks", SMART)
    report = boxlift(stack, "connect", "--project", str(number), "--url", stack.backend_url, "--interactive")
    [task] = studio.upload(number, [PHOTOS[PANDA].path])

    def click(x: float, y: float) -> list[object]:
        value = {"x": x, "y": y, "width": 0.4, "keypointlabels": ["Panda"]}
        item = {"type": "keypointlabels", "from_name": "tag", "to_name": "image", "value": value}
        body = {"task": task, "context": {"result": [item]}}
        answer = studio.call("POST", f"/api/ml/{report['backend']}/interactive-annotating", json=body)
        return list(answer["data"]["result"])

    def jobs() -> set[bytes]:
        with redis.Redis.from_url(stack.redis.url) as client:
            return set(client.scan_iter(f"rq:job:bl*-{number}-{task}-*", count=1000))

    assert jobs() == set()
    [first] = until(lambda: click(50, 50))
    done = jobs()
    assert done
    assert click(50.5, 50.5) == [first]
    assert jobs() == done
