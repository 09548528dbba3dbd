"""What folders, task files and tables become: tasks for Label Studio, and addresses that workers can read."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from backend.bulk.sources import Source, SourceError, read_source
from backend.labelling import parse_config

LABELS = '<RectangleLabels name="label" toName="image"><Label value="Cat"/></RectangleLabels></View>'
ONE = parse_config(f'<View><Image name="image" value="$photo"/>{LABELS}')
PAGES = parse_config(f'<View><Image name="image" valueList="$photos"/>{LABELS}')


def read(path: Path, labelling=ONE, prefix: str | None = None) -> Source:  # type: ignore[no-untyped-def]
    return read_source(path, labelling, prefix=prefix, spool=path.parent / "spool")


def place(url: str) -> Path:
    """The file behind a file: address."""
    parts = urlsplit(url)
    assert parts.scheme == "file"
    return Path(unquote(parts.path))


def test_a_folder_is_one_task_a_photo_whatever_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "my photos"
    (folder / "deep").mkdir(parents=True)
    names = ["a.jpg", "b #1?.PNG", "deep/ü%20.webp"]
    for name in names:
        (folder / name).write_bytes(b"x")
    (folder / "notes.txt").write_text("no photo")
    found = read(folder)
    assert [item.names for item in found.items] == [(name,) for name in names]
    assert [item.task for item in found.items] == [
        {"data": {"photo": "/data/local-files/?d=my%20photos/a.jpg"}},
        {"data": {"photo": "/data/local-files/?d=my%20photos/b%20%231%3F.PNG"}},
        {"data": {"photo": "/data/local-files/?d=my%20photos/deep/%C3%BC%2520.webp"}},
    ]
    assert [place(item.images[0].url) for item in found.items] == [folder.resolve() / name for name in names]
    assert found.roots == (folder.resolve(),)
    prefixed = read(folder, prefix="https://photos.example/")
    assert prefixed.items[0].task["data"]["photo"] == "https://photos.example/a.jpg"
    assert read(folder, PAGES).items[0].task == {"data": {"photos": ["/data/local-files/?d=my%20photos/a.jpg"]}}
    assert read(folder, PAGES).items[0].images[0].item_index == 0


def test_another_photo_of_that_name_is_other_work(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"one")
    before = read(tmp_path).items[0].images[0].url
    assert read(tmp_path).items[0].images[0].url == before
    photo.write_bytes(b"two")
    os.utime(photo, ns=(1, 1))
    assert read(tmp_path).items[0].images[0].url != before


def test_tasks_as_json(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    pixel = "data:image/png;base64," + base64.b64encode(b"pixels").decode()
    tasks = [
        {"photo": "a.jpg"},
        {"data": {"photo": "https://h/b.jpg"}, "id": 7, "meta": {"by": "me"}},
        {"data": {"photo": pixel}},
        {"data": {"photo": "/data/local-files/?d=a.jpg"}},
        {"data": {"other": 1}},
    ]
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(tasks))
    found = read(file)
    assert found.items[0].task == {"data": {"photo": "a.jpg"}}
    assert place(found.items[0].images[0].url) == tmp_path.resolve() / "a.jpg"
    assert found.items[1].task == tasks[1]
    assert found.items[1].images[0].url == "https://h/b.jpg"
    assert place(found.items[2].images[0].url).read_bytes() == b"pixels"
    assert place(found.items[3].images[0].url) == tmp_path.resolve() / "a.jpg"
    assert found.items[4].images == ()
    lines = tmp_path / "tasks.jsonl"
    lines.write_text("\n".join(map(json.dumps, tasks)))
    assert [item.task for item in read(lines).items] == [item.task for item in found.items]


def test_tables(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").write_bytes(b"x")
    table = tmp_path / "m.csv"
    table.write_text('photo,note\na b.jpg,"one, two"\nhttp://h/c.jpg,\n', encoding="utf-8-sig")
    found = read(table)
    assert [item.task for item in found.items] == [
        {"data": {"photo": "a b.jpg", "note": "one, two"}},
        {"data": {"photo": "http://h/c.jpg", "note": ""}},
    ]
    assert place(found.items[0].images[0].url).name == "a b.jpg"
    table.write_text("image\na.jpg\n")
    with pytest.raises(SourceError, match=r"no column photo.*it has image"):
        read(table)


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("empty", None, "no photo"),
        ("t.json", "{", "cannot be read as JSON"),
        ("t.json", "[1]", "task 1 is no JSON object"),
        ("t.json", "[]", "no tasks"),
        ("t.txt", "", "neither a folder"),
        ("t.json", '[{"photo": "data:image/png;base64,x"}]', "task 1 holds a data: URI"),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, name: str, content: str | None, complaint: str) -> None:
    path = tmp_path / name
    path.mkdir() if content is None else path.write_text(content)
    with pytest.raises(SourceError, match=complaint):
        read(path)


def test_configs_that_a_folder_cannot_fill(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    two = parse_config(
        '<View><Image name="a" value="$a"/><Image name="b" value="$b"/><RectangleLabels name="l" toName="a">'
        '<Label value="Cat"/></RectangleLabels><RectangleLabels name="m" toName="b"><Label value="Cat"/>'
        "</RectangleLabels></View>"
    )
    with pytest.raises(SourceError, match=r"give a \.json file"):
        read(tmp_path, two)
    with pytest.raises(SourceError, match="no Image tag"):
        read(tmp_path, parse_config("<View/>"))
    with pytest.raises(SourceError, match="does not exist"):
        read(tmp_path / "nowhere")
