"""What is pre-annotated without Label Studio: a folder of photos, Label Studio's tasks as JSON, or a CSV table.

Each becomes a list of `Item`s: the task as Label Studio will import it, and the photos as workers can read them.
"""

from __future__ import annotations

import base64
import binascii
import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from backend.labelling import Labelling, task_images
from worker.contract import ImageRef, digest
from worker.errors import BoxliftError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jxl", ".heic"})
"""Files of a folder that are taken for photos."""
LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio addresses files below its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT."""


class SourceError(BoxliftError):
    """What was given cannot be read as photos or tasks; the message says what to correct."""


@dataclass(frozen=True)
class Item:
    """One task to be."""

    task: dict[str, Any]
    """As Label Studio imports it: `data`, and whatever else the source said."""
    images: tuple[ImageRef, ...]
    """Its photos, with addresses that a worker on this machine can read."""
    names: tuple[str, ...]
    """Of the photos, in the same order: for people and other formats."""


@dataclass(frozen=True)
class Source:
    """All tasks, and the folders that their photos lie in."""

    items: tuple[Item, ...]
    roots: tuple[Path, ...]


def read_source(path: Path, labelling: Labelling, *, prefix: str | None, spool: Path) -> Source:
    """Read a folder, a .json file of tasks or a .csv (.tsv) table. Raises SourceError.

    `prefix` goes before each photo's path (below the folder) to make the address that Label Studio will show;
    without it that is Label Studio's for local files. Photos inside tasks (`data:` URIs) are unpacked to `spool`.
    """
    if not labelling.drawn_images:
        raise SourceError("the labelling config has no Image tag that boxes are drawn on: add one")
    if path.is_dir():
        return _folder(path.resolve(), labelling, prefix)
    if not path.is_file():
        raise SourceError(f"{path} does not exist: give a folder of photos, a .json file of tasks, or a .csv table")
    match path.suffix.lower():
        case ".json" | ".jsonl":
            tasks = _json_tasks(path)
        case ".csv" | ".tsv":
            tasks = _table(path, labelling)
        case _:
            raise SourceError(f"{path} is neither a folder, nor .json, .jsonl, .csv or .tsv")
    root = path.resolve().parent
    items = tuple(_item(task, labelling, root, spool, f"{path} task {n + 1}") for n, task in enumerate(tasks))
    if not items:
        raise SourceError(f"{path} holds no tasks")
    return Source(items, (root, spool))


def _folder(folder: Path, labelling: Labelling, prefix: str | None) -> Source:
    image = labelling.drawn_images[0]
    key = image.value.removeprefix("$")
    if len(labelling.drawn_images) > 1 or not image.value.startswith("$") or not key.isidentifier():
        raise SourceError(
            "a folder has one photo for each task, and the labelling config shows more, or not a plain $name: "
            "give a .json file of tasks instead"
        )
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    if not files:
        raise SourceError(f"no photo lies in {folder}: names must end in {', '.join(sorted(SUFFIXES))}")
    before = f"{LOCAL_FILES}{quote(folder.name)}/" if prefix is None else prefix
    items = []
    for file in files:
        name = file.relative_to(folder).as_posix()
        address = before + quote(name)
        ref = ImageRef(_local(file), image.name, 0 if image.pages else None)
        items.append(Item({"data": {key: [address] if image.pages else address}}, (ref,), (name,)))
    return Source(tuple(items), (folder,))


def _local(file: Path) -> str:
    """A file's address for workers. Its fragment changes with the file: another photo of that name is new work."""
    about = file.stat()
    return f"{file.as_uri()}#{about.st_size}-{about.st_mtime_ns}"


def _json_tasks(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        lines = path.suffix.lower() == ".jsonl"
        found = [json.loads(line) for line in text.splitlines() if line.strip()] if lines else json.loads(text)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as JSON ({error})") from None
    tasks = found if isinstance(found, list) else [found]
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, dict):
            raise SourceError(f"{path}: task {number} is no JSON object")
    # Label Studio takes both {"data": {…}} and the data alone.
    return [task if isinstance(task.get("data"), dict) else {"data": task} for task in tasks]


def _table(path: Path, labelling: Labelling) -> list[dict[str, Any]]:
    """Rows as tasks: the columns are the data's keys, as Label Studio imports tables."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            rows: list[dict[str, Any]] = [
                {name: value for name, value in row.items() if name is not None} for row in reader
            ]
            columns = list(reader.fieldnames or ())
    except (OSError, ValueError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as a table ({error})") from None
    wanted = {image.value.removeprefix("$") for image in labelling.drawn_images if image.value.startswith("$")}
    missing = sorted(name for name in wanted if name.isidentifier() and name not in columns)
    if missing:
        raise SourceError(
            f"{path} has no column {', '.join(missing)}, which the labelling config shows; it has "
            f"{', '.join(columns) or 'none'}"
        )
    return [{"data": row} for row in rows]


def _item(task: dict[str, Any], labelling: Labelling, root: Path, spool: Path, where: str) -> Item:
    images = tuple(task_images(task["data"], labelling))
    reachable = tuple(replace(image, url=_reachable(image.url, root, spool, where)) for image in images)
    return Item(task, reachable, tuple(_name(image.url) for image in images))


def _reachable(url: str, root: Path, spool: Path, where: str) -> str:
    """An address for workers: local files by their full path, `data:` URIs by the file they are unpacked to."""
    if url[:5].lower() == "data:":
        return _local(_unpack(url, spool, where))
    for candidate in _candidates(url, root):
        try:
            if candidate.is_file():
                return _local(candidate)
        except (OSError, ValueError):  # a name that no file can have
            continue
    return url


def _candidates(url: str, root: Path) -> Iterator[Path]:
    """Files that an address without a scheme may mean, whatever characters their names hold."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return
    if parts.scheme in ("http", "https", "s3", "gs", "azure-blob"):
        return
    yield root / url
    if parts.scheme in ("", "file"):
        yield root / unquote_to_bytes(parts.path).decode(errors="replace")
    if url.startswith(LOCAL_FILES):
        yield root / unquote_to_bytes(url.removeprefix(LOCAL_FILES)).decode(errors="replace")


def _unpack(uri: str, spool: Path, where: str) -> Path:
    head, _, body = uri.partition(",")
    try:
        content = base64.b64decode(unquote_to_bytes(body)) if head.endswith(";base64") else unquote_to_bytes(body)
    except (ValueError, binascii.Error):
        raise SourceError(f"{where} holds a data: URI that is not base64: correct it") from None
    file = spool / digest(uri, 32)
    if not file.exists():
        spool.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return file


def _name(url: str) -> str:
    if url[:5].lower() == "data:":
        return f"{digest(url, 12)}.image"
    return url.removeprefix(LOCAL_FILES)
