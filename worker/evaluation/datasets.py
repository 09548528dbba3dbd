"""Photos with true boxes: folders with boxes.jsonl, COCO JSON and Pascal VOC XML, read into one form."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException

from worker.contract import Box
from worker.errors import BoxliftError

PHOTOS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".JPG", ".JPEG", ".PNG")
SLACK = 0.01
"""Boxes reach beyond the photo by rounding; what lies farther out than this fraction is no fraction."""


class DatasetError(BoxliftError):
    """A data set cannot be read; the message names the file, and the line or record."""


@dataclass(frozen=True, slots=True)
class Object:
    """One true object."""

    label: str
    box: Box
    """In fractions of the upright image's width and height."""
    class_index: int | None = None
    """Of ImageNet, where the data set says so; after `for_network` of the network."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One photo and everything that is known to be in it."""

    path: Path
    objects: tuple[Object, ...]
    one_class: bool = False
    """The photo stands for one class, as in ILSVRC: however many boxes it has, one right box is what is asked
    for."""


def read_dataset(path: Path, *, empty: bool = False) -> list[Sample]:
    """The samples of a data set, in the order of its files.

    - a folder with `boxes.jsonl`: one photo a line, `{file, class_index, class_name, boxes}` or
      `{file, objects: [{label, box}]}`, boxes in fractions; or that file itself;
    - a COCO `instances*.json`, or a folder with exactly one of them in it or in `annotations/`; photos lie beside
      it, in `images/`, or in a folder named like the file's part after "instances_"; crowds do not count;
    - Pascal VOC: a folder with `Annotations/*.xml` and `JPEGImages/`, the root of a VOCdevkit (all its years), a
      folder with XML beside the photos, or one XML file; objects marked difficult do not count.

    Photos without any object are left out unless `empty`. Raises DatasetError, naming the file and the line or
    record, for anything else, and where no photo has an object.
    """
    try:
        samples = _read(path)
    except OSError as error:
        raise DatasetError(f"{error.filename or path} cannot be read: {error.strerror}") from None
    if not any(sample.objects for sample in samples):
        raise DatasetError(f"{path} holds no photo with a box")
    return samples if empty else [sample for sample in samples if sample.objects]


def for_network(
    samples: Sequence[Sample], classes: Sequence[str], *, own: bool
) -> tuple[list[Sample], dict[str, int]]:
    """The samples with class indices of a network, and how many objects of which label had one that it has not.

    With `own` classes ImageNet's indices mean nothing: an object's class is the one that is called as its label, if
    there is one. Otherwise indices stay as far as the network has them.
    """
    index_of = {_name(name): index for index, name in enumerate(classes)}
    lost: dict[str, int] = {}

    def known(item: Object) -> Object:
        if own:
            index = index_of.get(_name(item.label))
        else:
            index = item.class_index if (item.class_index or 0) < len(classes) else None
        if index is None and item.class_index is not None:
            lost[item.label] = lost.get(item.label, 0) + 1
        return replace(item, class_index=index)

    return [replace(one, objects=tuple(known(item) for item in one.objects)) for one in samples], lost


def _name(text: str) -> str:
    return " ".join(text.casefold().replace("_", " ").split())


def _read(path: Path) -> list[Sample]:
    if path.name.endswith(".jsonl") or (path / "boxes.jsonl").is_file():
        return list(_lines(path if path.is_file() else path / "boxes.jsonl"))
    if files := _voc_files(path):
        return [_voc(file) for file in files]
    return _coco(path if path.is_file() else _coco_file(path))


@contextmanager
def _at(where: str) -> Iterator[None]:
    """What is wrong with a file or one of its records becomes a DatasetError that says where."""
    try:
        yield
    except KeyError as error:
        raise DatasetError(f"{where}: {error.args[0]!r} is missing") from None
    except RecursionError:
        raise DatasetError(f"{where} is nested too deeply for a data set") from None
    except (ElementTree.ParseError, DefusedXmlException) as error:
        raise DatasetError(f"{where} is no XML that can be read ({type(error).__name__}: {error})") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise DatasetError(f"{where} is not as it should be ({type(error).__name__}: {error})") from None


def _lines(file: Path) -> Iterator[Sample]:
    with _at(str(file)):
        lines = file.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip():
            with _at(f"{file}, line {number}"):
                sample = _line(json.loads(line), file.parent)
            yield sample


def _line(item: dict[str, Any], folder: Path) -> Sample:
    if "objects" in item:
        objects = [Object(_label(o["label"]), _fractions(o["box"]), _index(o)) for o in item["objects"]]
        return Sample(folder / item["file"], tuple(objects))
    label = _label(item.get("class_name", ""))
    objects = [Object(label, _fractions(box), _index(item)) for box in item["boxes"]]
    return Sample(folder / item["file"], tuple(objects), one_class=True)


def _coco_file(folder: Path) -> Path:
    found = [*folder.glob("*.json"), *folder.glob("annotations/*.json")]
    instances = [file for file in found if file.name.startswith("instances")] or found
    if len(instances) != 1:
        raise DatasetError(
            f"{folder} holds no boxes.jsonl, no Annotations/, no XML and {len(instances)} JSON files: "
            "name the one to read"
        )
    return instances[0]


def _coco(file: Path) -> list[Sample]:
    with _at(str(file)):
        data: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        names = {category["id"]: _label(category["name"]) for category in data["categories"]}
        objects = defaultdict(list)
        for item in data["annotations"]:
            if not item.get("iscrowd"):
                objects[item["image_id"]].append(item)
        samples = []
        for image in data["images"]:
            with _at(f"{file}, image {image['id']}"):
                width, height = _size(image["width"], image["height"])
            found = []
            for item in objects[image["id"]]:
                with _at(f"{file}, annotation {item.get('id', '?')} of image {image['id']}"):
                    x, y, w, h = _numbers(item["bbox"])
                    box = _box(x / width, y / height, (x + w) / width, (y + h) / height)
                    found.append(Object(names[item["category_id"]], box))
            samples.append(Sample(_coco_photo(file, str(image["file_name"])), tuple(found)))
    return samples


def _coco_photo(file: Path, name: str) -> Path:
    part = file.stem.removeprefix("instances_")
    roots = [file.parent, file.parent.parent]
    return _first([root / folder / name for root in roots for folder in ("", "images", part, f"images/{part}")])


def _voc_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".xml" else []
    if any(path.glob("Annotations/*.xml")):
        return sorted(path.glob("Annotations/*.xml"))
    if any(path.glob("instances*.json")):
        return []  # XML that lies beside it is something else
    for pattern in ("*.xml", "VOC*/Annotations/*.xml", "VOCdevkit/VOC*/Annotations/*.xml"):
        if found := sorted(path.glob(pattern)):
            return found
    return []


def _voc(file: Path) -> Sample:
    with _at(str(file)):
        root = defusedxml.ElementTree.parse(file).getroot()
        if root is None:
            raise ValueError("it is empty")
        width, height = _size(*(float(_text(root, f"size/{side}")) for side in ("width", "height")))
        objects = []
        for item in root.iter("object"):
            if item.findtext("difficult", "0").strip() == "1":
                continue
            # VOC counts pixels from 1, and its last row and column belong to the box.
            x0, y0, x1, y1 = (float(_text(item, f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
            box = _box((x0 - 1) / width, (y0 - 1) / height, x1 / width, y1 / height)
            objects.append(Object(_text(item, "name"), box))
    return Sample(_voc_photo(file, (root.findtext("filename") or "").strip()), tuple(objects))


def _voc_photo(file: Path, name: str) -> Path:
    """The photo in JPEGImages/ or beside the XML, by the name in it, which may lack its ending, or by the XML's."""
    above = file.parent.parent
    folders = [above / "JPEGImages", file.parent, above, above / "images"]
    if file.parent.name != "Annotations":
        folders.insert(0, file.parent)
    names = [name] if name else []
    names += [stem + ending for stem in (name, file.stem) if stem for ending in PHOTOS]
    return _first([folder / one for one in names for folder in folders])


def _first(places: Sequence[Path]) -> Path:
    """The first place where there is a file, or else the first one, for the message that it is not there."""
    return next((place for place in places if place.is_file()), places[0])


def _text(item: ElementTree.Element, path: str) -> str:
    text = item.findtext(path)
    if text is None or not text.strip():
        raise ValueError(f"{path} is missing")
    return text.strip()


def _label(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no name of a class")
    return value


def _index(item: dict[str, Any]) -> int | None:
    value = item.get("class_index")
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError(f"class_index is {value!r}: it must be a whole number from 0 on, or left out")
    return value


def _size(width: Any, height: Any) -> tuple[float, float]:
    sides = _numbers((width, height))
    if not all(0 < side < float("inf") for side in sides):
        raise ValueError(f"{width} × {height} is no size of a photo")
    return sides[0], sides[1]


def _numbers(values: Any) -> list[float]:
    numbers = list(values)
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers):
        raise TypeError(f"{numbers!r} are no numbers")
    return [float(value) for value in numbers]


def _fractions(values: Any) -> Box:
    x0, y0, x1, y1 = _numbers(values)
    if not all(-SLACK <= value <= 1 + SLACK for value in (x0, y0, x1, y1)):
        raise ValueError(f"{list(values)}: boxes are x0, y0, x1, y1 as fractions of width and height, from 0 to 1")
    return _box(x0, y0, x1, y1)


def _box(*values: float) -> Box:
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in values)
    if not (x0 <= x1 and y0 <= y1):
        raise ValueError(f"{list(values)} is no box")
    return x0, y0, x1, y1
