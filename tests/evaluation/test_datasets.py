"""The three forms of data set, and what is wrong with broken ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worker.evaluation.datasets import DatasetError, Object, Sample, for_network, read_dataset


def test_lines(tmp_path: Path) -> None:
    lines = [
        {"file": "a.jpg", "class_index": 3, "class_name": "shark", "boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]]},
        {"file": "b.jpg", "objects": [{"label": "cup", "box": [0.1, 0.2, 0.3, 0.4]}]},
        {"file": "c.jpg", "objects": []},
    ]
    (tmp_path / "boxes.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    for path in (tmp_path, tmp_path / "boxes.jsonl"):
        first, second = read_dataset(path)
        assert (first.one_class, second.one_class) == (True, False)
        assert read_dataset(path, empty=True)[2].objects == ()
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


@pytest.mark.parametrize("place", ["1.xml", "VOC2007/Annotations/1.xml", "VOCdevkit/VOC2012/Annotations/1.xml"])
def test_voc_wherever_it_lies(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(VOC)
    photos = file.parent if place == "1.xml" else file.parent.parent / "JPEGImages"
    photos.mkdir(exist_ok=True)
    (photos / "1.jpg").touch()
    for path in (tmp_path, file):
        [sample] = read_dataset(path)
        assert sample.path == photos / "1.jpg"


def test_the_photo_of_xml_whose_file_name_lacks_its_ending(tmp_path: Path) -> None:
    (tmp_path / "one.xml").write_text(VOC.replace("1.jpg", "1"))
    (tmp_path / "1.png").touch()
    assert read_dataset(tmp_path)[0].path == tmp_path / "1.png"


def test_all_years_of_a_devkit(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / year / "Annotations").mkdir(parents=True)
        (tmp_path / year / "Annotations" / "1.xml").write_text(VOC)
    assert [one.path.parent.parent.name for one in read_dataset(tmp_path)] == ["VOC2007", "VOC2012"]


COCO_IMAGE = '{"id": 4, "file_name": "a.jpg", "width": 10, "height": 10}'
COCO = '{"images": [%s], "categories": [{"id": 1, "name": "cat"}], "annotations": [%s]}'


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("boxes.jsonl", "not json", "boxes.jsonl, line 1"),
        ("boxes.jsonl", '\n{"file": "a.jpg", "boxes": [[0.5, 0, 0.1, 1]]}', "boxes.jsonl, line 2.*no box"),
        ("boxes.jsonl", '{"file": "a.jpg", "boxes": [[0, 0, 120, 80]]}', "line 1.*fractions"),
        ("boxes.jsonl", '{"file": "a.jpg", "boxes": [["0", 0, 1, 1]]}', "line 1.*no numbers"),
        ("boxes.jsonl", '{"file": "a.jpg", "class_index": "347", "boxes": [[0, 0, 1, 1]]}', "line 1.*'347'"),
        ("boxes.jsonl", '{"file": "a.jpg", "class_index": -1, "boxes": [[0, 0, 1, 1]]}', "line 1.*-1"),
        ("boxes.jsonl", '{"file": "a.jpg", "objects": [{"label": 3, "box": [0, 0, 1, 1]}]}', "line 1.*name"),
        ("boxes.jsonl", '{"file": "a.jpg"}', "line 1: 'boxes' is missing"),
        ("boxes.jsonl", "[" * 100_000, "line 1 is nested too deeply"),
        ("boxes.jsonl", "", "no photo with a box"),
        ("boxes.jsonl", '{"file": "a.jpg", "objects": []}', "no photo with a box"),
        ("instances.json", '{"images": []}', "instances.json: 'categories' is missing"),
        ("instances.json", "[]", "instances.json"),
        ("instances.json", "[" * 100_000, "instances.json is nested too deeply"),
        ("instances.json", COCO % (COCO_IMAGE.replace('"width": 10', '"width": 0'), ""), "image 4.*no size"),
        (
            "instances.json",
            COCO % (COCO_IMAGE, '{"id": 8, "image_id": 4, "category_id": 1, "bbox": [1]}'),
            "annotation 8",
        ),
        ("Annotations/1.xml", "<annotation>", "1.xml is no XML"),
        ("Annotations/1.xml", '<!DOCTYPE a [<!ENTITY e "e">]><annotation>&e;</annotation>', "1.xml is no XML"),
        ("Annotations/1.xml", VOC.replace("<width>200</width>", ""), "1.xml.*size/width is missing"),
        ("Annotations/1.xml", VOC.replace("<width>200", "<width>0"), "1.xml.*no size"),
        ("readme.txt", "nothing", "no boxes.jsonl"),
    ],
)
def test_broken_ones_are_named(tmp_path: Path, name: str, text: str, told: str) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    with pytest.raises(DatasetError, match=told) as caught:
        read_dataset(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_class_indices_are_the_networks_own() -> None:
    objects = tuple(Object(label, (0, 0, 1, 1), index) for label, index in (("Cat", 2), ("dog", 5), ("cup", None)))
    samples = [Sample(Path("a.jpg"), objects)]

    def indices(*classes: str, own: bool) -> tuple[list[int | None], dict[str, int]]:
        [sample], lost = for_network(samples, classes, own=own)
        return [item.class_index for item in sample.objects], lost

    assert indices("a", "b", "c", own=False) == ([2, None, None], {"dog": 1})
    assert indices("cup", "cat", own=True) == ([1, None, 0], {"dog": 1})
