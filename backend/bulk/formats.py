"""Boxes as files: Label Studio's import format, COCO and YOLO. A file is there completely, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TextIO

from backend.bulk.sources import Item
from backend.labelling import LabelMap
from backend.predictions import Prediction, to_prediction, wanted
from worker.contract import Box, ImageResult, Result

NO_LABEL = "object"
"""Name of what a config without labels draws, where a format must have one."""


@dataclass(frozen=True)
class Predicted:
    """A task, and what was found in it."""

    item: Item
    result: Result | None
    """None where none of its photos could be used."""

    def prediction(self, mapping: LabelMap) -> Prediction | None:
        """As Label Studio stores it."""
        return to_prediction(self.result, mapping) if self.result is not None else None

    def pictures(self) -> Iterator[tuple[str, ImageResult]]:
        """Its photos that could be used, by name."""
        names = dict(zip(self.item.images, self.item.names, strict=True))
        for image in self.result.images if self.result is not None else ():
            if image.error is None:
                yield names[image.image], image


Writer = Callable[[Path, Sequence[Predicted], LabelMap, Sequence[str]], None]
"""Writes all tasks to a path, given what each class is called here and the config's labels in order."""


def write_label_studio(out: Path, tasks: Sequence[Predicted], mapping: LabelMap, labels: Sequence[str]) -> None:
    """Tasks for Label Studio's import: `out` is one JSON list, one task a line, each with its prediction.

    Predictions that a task had already stay, but for one of the same version.
    """
    with whole_file(out) as file:
        file.write("[")
        for number, task in enumerate(tasks):
            prediction = task.prediction(mapping)
            version = prediction["model_version"] if prediction else None
            before = [old for old in task.item.task.get("predictions") or () if old.get("model_version") != version]
            new = [prediction] if prediction else []
            entry = task.item.task | {"predictions": [*before, *new]}
            file.write(("," if number else "") + "\n" + json.dumps(entry, ensure_ascii=False))
        file.write("\n]\n")


def write_coco(out: Path, tasks: Sequence[Predicted], mapping: LabelMap, labels: Sequence[str]) -> None:
    """COCO's format for object detection, with scores: bbox is x, y, width, height in pixels of the upright one."""
    numbers = {label: number for number, label in enumerate(_classes(labels), 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for name, picture in _pictures(tasks):
        image = {"id": len(images) + 1, "file_name": name, "width": picture.width, "height": picture.height}
        images.append(image)
        for label, score, (x0, y0, x1, y1) in _boxes(picture, mapping):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": numbers[label],
                    "bbox": [round(v, 2) for v in (x0, y0, x1 - x0, y1 - y0)],
                    "area": round((x1 - x0) * (y1 - y0), 2),
                    "iscrowd": 0,
                    "score": round(score, 6),
                }
            )
    categories = [{"id": number, "name": label} for label, number in numbers.items()]
    about = {"description": "draft boxes by Boxlift"}
    with whole_file(out) as file:
        everything = {"info": about, "images": images, "annotations": annotations, "categories": categories}
        json.dump(everything, file, ensure_ascii=False)


def write_yolo(out: Path, tasks: Sequence[Predicted], mapping: LabelMap, labels: Sequence[str]) -> None:
    """YOLO's text format: `out` is a folder with classes.txt and labels/…, a .txt for each photo.

    A line is `class x y width height`: middle and size as fractions of the upright photo. No scores: what trains on
    these files takes five columns. Photos whose names differ only in their ending keep it.
    """
    numbers = {label: number for number, label in enumerate(_classes(labels))}
    with _whole_folder(out) as folder:
        (folder / "classes.txt").write_text("".join(f"{label}\n" for label in numbers), encoding="utf-8")
        taken: set[PurePosixPath] = set()
        for name, picture in _pictures(tasks):
            place = _inside(name)
            stem = place.with_suffix("") if place.with_suffix("") not in taken else place
            taken.add(stem)
            lines = []
            for label, _, (x0, y0, x1, y1) in _boxes(picture, mapping):
                across, down = picture.width, picture.height
                sides = ((x0 + x1) / 2 / across, (y0 + y1) / 2 / down, (x1 - x0) / across, (y1 - y0) / down)
                lines.append(f"{numbers[label]} " + " ".join(f"{side:.6f}" for side in sides) + "\n")
            file = folder / "labels" / f"{stem}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(lines), encoding="utf-8")


WRITERS: dict[str, Writer] = {"label-studio": write_label_studio, "coco": write_coco, "yolo": write_yolo}
"""Format → what writes it."""


def _classes(labels: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(labels)) or [NO_LABEL]


def _pictures(tasks: Iterable[Predicted]) -> Iterator[tuple[str, ImageResult]]:
    for task in tasks:
        yield from task.pictures()


def _boxes(picture: ImageResult, mapping: LabelMap) -> Iterator[tuple[str, float, Box]]:
    """Label, score and box (cut to the photo, in its pixels)."""
    for detection, target in wanted(picture, mapping):
        x0, x1 = (min(max(v, 0.0), float(picture.width)) for v in (detection.box[0], detection.box[2]))
        y0, y1 = (min(max(v, 0.0), float(picture.height)) for v in (detection.box[1], detection.box[3]))
        yield target.label or NO_LABEL, detection.score, (x0, y0, x1, y1)


def _inside(name: str) -> PurePosixPath:
    """A photo's name as a relative path that cannot leave its folder."""
    path = name.partition("://")[2] or name
    parts = [part for part in PurePosixPath(path.partition("?")[0]).parts if part not in ("/", "..", ".")]
    return PurePosixPath(*parts) if parts else PurePosixPath("image")


@contextmanager
def whole_file(out: Path) -> Iterator[TextIO]:
    """A file to fill; afterwards it takes the place of `out`, and where that does not happen nothing changes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@contextmanager
def _whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill; afterwards it takes the place of `out`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)
        before = folder.with_name(f"{folder.name}.before")
        if out.exists():
            out.rename(before)
        folder.rename(out)
        shutil.rmtree(before, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
