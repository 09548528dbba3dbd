"""Photos with true boxes: folders with boxes.jsonl, COCO JSON and Pascal VOC XML, read into one form."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from worker.contract import Box
from worker.errors import BoxliftError

_MALFORMED = (ValueError, TypeError, AttributeError, ElementTree.ParseError, DefusedXmlException)


class DatasetError(BoxliftError):
    """A data set cannot be read; the message names the file."""


@dataclass(frozen=True, slots=True)
class Object:
    """One true object."""

    label: str
    box: Box
    """In fractions of the upright image's width and height."""
    class_index: int | None = None
    """Of ImageNet, where the data set says so."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One photo and everything that is known to be in it."""

    path: Path
    objects: tuple[Object, ...]


def read_dataset(path: Path) -> list[Sample]:
    """The samples of a data set, in the order of its files.

    - a folder with `boxes.jsonl`: one photo a line, `{file, class_index, class_name, boxes}` or
      `{file, objects: [{label, box}]}`, boxes in fractions; or that file itself;
    - a COCO `instances*.json`, or a folder with exactly one of them in it or in `annotations/`; photos lie beside
      it, in `images/`, or in a folder named like the file's part after "instances_"; crowds do not count;
    - a Pascal VOC folder with `Annotations/*.xml` and `JPEGImages/`; objects marked difficult do not count.

    Photos without any object are left out. Raises DatasetError, naming the file, for anything else.
    """
    try:
        if path.name.endswith(".jsonl") or (path / "boxes.jsonl").is_file():
            file = path if path.is_file() else path / "boxes.jsonl"
            samples = list(_lines(file))
        elif (path / "Annotations").is_dir():
            file = path / "Annotations"
            samples = list(_voc(path))
        else:
            file = path if path.is_file() else _coco_file(path)
            samples = list(_coco(file))
    except DatasetError:
        raise
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ElementTree.ParseError,
        DefusedXmlException,
    ) as error:
        raise DatasetError(f"{path} is no data set of a known form ({type(error).__name__}: {error})") from None
    kept = [sample for sample in samples if sample.objects]
    if not kept:
        raise DatasetError(f"{file} holds no photo with a box")
    return kept


def _lines(file: Path) -> Iterator[Sample]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        item = json.loads(line)
        if "objects" in item:
            objects = [Object(o["label"], _box(o["box"]), o.get("class_index")) for o in item["objects"]]
        else:
            label = item.get("class_name", "")
            objects = [Object(label, _box(box), item.get("class_index")) for box in item["boxes"]]
        yield Sample(file.parent / item["file"], tuple(objects))


def _coco_file(folder: Path) -> Path:
    found = [*folder.glob("*.json"), *folder.glob("annotations/*.json")]
    instances = [file for file in found if file.name.startswith("instances")] or found
    if len(instances) != 1:
        raise DatasetError(
            f"{folder} holds no boxes.jsonl, no Annotations/ and {len(instances)} JSON files: name the one to read"
        )
    return instances[0]


def _coco(file: Path) -> Iterator[Sample]:
    data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    names = {category["id"]: str(category["name"]) for category in data["categories"]}
    objects = defaultdict(list)
    for item in data["annotations"]:
        if not item.get("iscrowd"):
            objects[item["image_id"]].append(item)
    for image in data["images"]:
        width, height = float(image["width"]), float(image["height"])
        found = []
        for item in objects[image["id"]]:
            x, y, w, h = (float(value) for value in item["bbox"])
            box = _box((x / width, y / height, (x + w) / width, (y + h) / height))
            found.append(Object(names[item["category_id"]], box))
        yield Sample(_coco_photo(file, str(image["file_name"])), tuple(found))


def _coco_photo(file: Path, name: str) -> Path:
    part = file.stem.removeprefix("instances_")
    roots = [file.parent, file.parent.parent]
    places = [root / folder for root in roots for folder in ("", "images", part, f"images/{part}")]
    return next((place / name for place in places if (place / name).is_file()), file.parent / name)


def _voc(folder: Path) -> Iterator[Sample]:
    for file in sorted((folder / "Annotations").glob("*.xml")):
        root = defusedxml.ElementTree.parse(file).getroot()
        if root is None:
            raise DatasetError(f"{file} is empty")
        try:
            width, height = (float(_text(root, f"size/{side}")) for side in ("width", "height"))
            objects = []
            for item in root.iter("object"):
                if item.findtext("difficult", "0").strip() == "1":
                    continue
                # VOC counts pixels from 1, and its last row and column belong to the box.
                x0, y0, x1, y1 = (float(_text(item, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
                box = _box(((x0 - 1) / width, (y0 - 1) / height, x1 / width, y1 / height))
                objects.append(Object(_text(item, "name"), box))
        except (ValueError, ZeroDivisionError) as error:
            raise DatasetError(f"{file} is no Pascal VOC annotation: {error}") from None
        yield Sample(folder / "JPEGImages" / _text(root, "filename"), tuple(objects))


def _text(item: ElementTree.Element, path: str) -> str:
    text = item.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"{path} is missing")
    return text.strip()


def _box(values: Any) -> Box:
    x0, y0, x1, y1 = (min(max(float(value), 0.0), 1.0) for value in values)
    if not (x0 <= x1 and y0 <= y1):
        raise ValueError(f"{list(values)} is no box")
    return x0, y0, x1, y1
