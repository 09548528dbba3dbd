"""The three forms of data set, and what is wrong with broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.evaluation.datasets import DatasetError, read_dataset


def test_lines(tmp_path: Path) -> None:
    lines = [
        {"file": "a.jpg", "class_index": 3, "class_name": "shark", "boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]},
        {"file": "b.jpg", "objects": [{"label": "cup", "box": [0.1, 0.2, 0.3, 0.4]}]},
        {"file": "c.jpg", "objects": []},
    ]
    (tmp_path / "boxes.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    for path in (tmp_path, tmp_path / "boxes.jsonl"):
        first, second = read_dataset(path)
        assert first.path == tmp_path / "a.jpg"
        assert [(item.label, item.class_index, item.box) for item in first.objects] == [
            ("shark", 3, (0, 0, 0.5, 1)),
            ("shark", 3, (0.5, 0, 1, 1)),
        ]
        assert second.objects[0].class_index is None


def test_coco(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "1.jpg").touch()
    data = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": 200, "height": 100}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [20, 10, 100, 50], "iscrowd": 0},
            {"image_id": 1, "category_id": 7, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        ],
    }
    file = tmp_path / "annotations" / "instances_val.json"
    file.write_text(json.dumps(data))
    for path in (tmp_path, file):
        [sample] = read_dataset(path)
        assert sample.path == tmp_path / "val" / "1.jpg"
        assert [item.label for item in sample.objects] == ["cat"]
        assert sample.objects[0].box == pytest.approx((0.1, 0.1, 0.6, 0.6))


VOC = """<annotation><filename>1.jpg</filename><size><width>200</width><height>100</height></size>
<object><name>cat</name><bndbox><xmin>21</xmin><ymin>11</ymin><xmax>120</xmax><ymax>60</ymax></bndbox></object>
<object><name>dog</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox>
</object></annotation>"""


def test_voc(tmp_path: Path) -> None:
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "1.xml").write_text(VOC)
    [sample] = read_dataset(tmp_path)
    assert sample.path == tmp_path / "JPEGImages" / "1.jpg"
    assert [item.label for item in sample.objects] == ["cat"]
    assert sample.objects[0].box == pytest.approx((0.1, 0.1, 0.6, 0.6))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("boxes.jsonl", "not json"),
        ("boxes.jsonl", '{"file": "a.jpg", "boxes": [[0.5, 0, 0.1, 1]]}'),
        ("boxes.jsonl", '{"file": "a.jpg"}'),
        ("boxes.jsonl", ""),
        ("instances.json", '{"images": []}'),
        ("instances.json", "[]"),
        ("Annotations/1.xml", "<annotation>"),
        ("Annotations/1.xml", VOC.replace("<width>200</width>", "")),
        ("Annotations/1.xml", VOC.replace("<width>200", "<width>0")),
        ("readme.txt", "nothing"),
    ],
)
def test_broken_ones_are_named(tmp_path: Path, name: str, text: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(DatasetError, match=str(tmp_path)):
        read_dataset(tmp_path)
