"""Labelling configs: what is found in them, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from backend.cli import main
from backend.labelling import parse_config, task_images
from worker.contract import ImageRef
from worker.errors import LabellingError

LABELS = '<Label value="Dog"/><Label value="Cat" predicted_values="tabby, tiger cat" alias="feline"/>'


def view(*tags: str) -> str:
    return f"<View>{''.join(tags)}</View>"


IMAGE = '<Image name="image" value="$image"/>'
BOXES = f'<RectangleLabels name="label" toName="image">{LABELS}</RectangleLabels>'


def test_rectangle_labels() -> None:
    labelling = parse_config(view(IMAGE, BOXES))
    (control,) = labelling.controls
    assert (control.from_name, control.to_names, control.labels_from_name) == ("label", ("image",), None)
    assert [label.value for label in control.labels] == ["Dog", "feline"]
    assert control.labels[1].predicted_values == ("tabby", "tiger cat")
    assert set(control.labels[1].names) == {"Cat", "feline"}
    assert labelling.problems == ()


def test_rectangle_with_labels_beside_it() -> None:
    labelling = parse_config(
        view(
            IMAGE, '<Rectangle name="box" toName="image"/>', f'<Labels name="lab" toName="image">{LABELS}</Labels>'
        )
    )
    (control,) = labelling.controls
    assert (control.from_name, control.labels_from_name, control.bare) == ("box", "lab", False)
    assert [label.value for label in control.labels] == ["Dog", "feline"]


def test_rectangle_alone_takes_boxes_without_a_label() -> None:
    (control,) = parse_config(view(IMAGE, '<Rectangle name="box" toName="image"/>')).controls
    assert control.bare
    assert control.labels == ()


def test_several_images_and_controls_keep_apart() -> None:
    labelling = parse_config(
        view(
            '<Image name="a" value="$left"/><Image name="b" value="$right"/><Image name="c" value="$unused"/>',
            f'<RectangleLabels name="la" toName="a">{LABELS}</RectangleLabels>',
            '<RectangleLabels name="lb" toName="b"><Label value="Car"/></RectangleLabels>',
            '<RectangleLabels name="both" toName="a,b"><Label value="Tree"/></RectangleLabels>',
        )
    )
    assert [control.from_name for control in labelling.controls_of("a")] == ["la", "both"]
    assert [control.from_name for control in labelling.controls_of("b")] == ["lb", "both"]
    data = {"left": "http://h/l.jpg", "right": "http://h/r.jpg", "unused": "http://h/u.jpg"}
    assert task_images(data, labelling) == (ImageRef("http://h/l.jpg", "a"), ImageRef("http://h/r.jpg", "b"))


def test_settings_of_a_tag() -> None:
    tag = '<RectangleLabels name="label" toName="image" model_score_threshold="0.35" model_max_boxes="4">'
    (control,) = parse_config(view(IMAGE, tag, LABELS, "</RectangleLabels>")).controls
    assert (control.min_score, control.max_boxes) == (0.35, 4)
    assert parse_config(view(IMAGE, BOXES.replace("toName", 'model_skip="true" toName'))).controls == ()


@pytest.mark.parametrize("value", ["much", "-1", "nan", "2"])
def test_a_setting_that_is_no_number_is_named_and_not_used(value: str) -> None:
    labelling = parse_config(view(IMAGE, BOXES.replace("toName", f'model_score_threshold="{value}" toName')))
    assert labelling.controls[0].min_score == 0
    assert "model_score_threshold" in labelling.problems[0]
    assert value in labelling.problems[0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "empty"),
        ("<View></View>", "RectangleLabels"),
        (view(IMAGE, '<Choices name="c" toName="image"><Choice value="Dog"/></Choices>'), "RectangleLabels"),
        (view('<Text name="image" value="$text"/>', BOXES), "Image"),
        (view(IMAGE, BOXES.replace('toName="image"', 'toName="other"')), "toName"),
        (view(IMAGE, '<RectangleLabels name="label" toName="image"/>'), "no Label"),
        (view(IMAGE, '<RectangleLabels name="label" toName="image" value="$labels"/>'), "task data"),
    ],
)
def test_a_config_without_boxes_says_why(config: str, words: str) -> None:
    labelling = parse_config(config)
    assert labelling.controls == ()
    assert any(words in problem for problem in labelling.problems)


BOMB = '<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]><View>&b;</View>'
FILE = '<!DOCTYPE v [<!ENTITY f SYSTEM "file:///etc/hostname">]><View>&f;</View>'


@pytest.mark.parametrize("config", [BOMB, FILE, '<!DOCTYPE v SYSTEM "http://127.0.0.1:9/v.dtd"><View/>'])
def test_document_types_and_entities_are_refused(config: str) -> None:
    with pytest.raises(LabellingError, match="entities"):
        parse_config(config)


@pytest.mark.parametrize(
    "config", ["<View>", "View", "<View></Vue>", "\x00", "<View><Image value='$i'/><View>", "<a>" * 30_000]
)
def test_broken_xml_is_an_error_of_ours(config: str) -> None:
    with pytest.raises(LabellingError):
        parse_config(config)


@given(st.text(alphabet="<>/='\" $abViewImagetoNvlurc&;!-[]", max_size=80) | st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for config in (text, view(IMAGE, BOXES, text), f"<View>{text}</View>"):
        with contextlib.suppress(LabellingError):
            parse_config(config)


def test_smart_tags_are_known() -> None:
    labelling = parse_config(
        view(
            IMAGE,
            '<KeyPointLabels name="tag" toName="image" smart="true"><Label value="Dog"/></KeyPointLabels>',
            BOXES.replace("toName", 'smart="true" toName'),
        )
    )
    assert labelling.smart
    assert labelling.problems == ()
    assert not parse_config(view(IMAGE, BOXES)).smart


@pytest.mark.parametrize("box", ["RectangleLabels", "Rectangle"])
def test_labels_of_a_smart_tool_that_no_box_can_have_are_named(box: str) -> None:
    click = '<KeyPointLabels name="tag" toName="image" smart="true"><Label value="Zebra"/></KeyPointLabels>'
    boxes = BOXES if box == "RectangleLabels" else '<Rectangle name="box" toName="image"/>'
    problems = parse_config(view(IMAGE, click, boxes)).problems
    assert any('"Zebra"' in problem for problem in problems) == (box == "RectangleLabels")


def test_every_labels_tag_beside_a_rectangle_counts() -> None:
    labelling = parse_config(
        view(
            IMAGE,
            '<Rectangle name="box" toName="image" model_max_boxes="no"/>',
            f'<Labels name="pets" toName="image">{LABELS}</Labels>',
            '<Labels name="cars" toName="image"><Label value="Car"/></Labels>',
        )
    )
    assert [(c.from_name, c.labels_from_name, [label.value for label in c.labels]) for c in labelling.controls] == [
        ("box", "pets", ["Dog", "feline"]),
        ("box", "cars", ["Car"]),
    ]
    assert len(labelling.problems) == 1


def test_a_repeater_is_named_and_not_read() -> None:
    page = IMAGE.replace('"image"', '"page_{{idx}}"').replace("$image", "$images[{{idx}}].url")
    boxes = BOXES.replace('"label"', '"label_{{idx}}"').replace('"image"', '"page_{{idx}}"')
    repeater = f'<Repeater on="$images" indexFlag="{{{{idx}}}}">{page}{boxes}</Repeater>'
    labelling = parse_config(view(repeater))
    assert labelling.controls == ()
    assert "valueList" in labelling.problems[0]
    assert not any("toName" in problem for problem in labelling.problems)
    beside = parse_config(view(repeater, IMAGE, BOXES))
    assert [control.from_name for control in beside.controls] == ["label"]


@pytest.mark.parametrize(
    "start", ['<?xml version="1.0" encoding="utf-8"?>', '\ufeff<?xml version="1.0"?>\n', "\ufeff"]
)
def test_what_files_begin_with_does_no_harm(start: str) -> None:
    assert len(parse_config(start + view(IMAGE, BOXES)).controls) == 1


@pytest.mark.parametrize("option", ["--config", "--classes"])
def test_files_of_another_encoding_are_named(option: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.xml", tmp_path / "bad.xml"
    good.write_text("\ufeff" + view(IMAGE, BOXES), encoding="utf-8")
    bad.write_bytes(view(IMAGE, BOXES.replace("Dog", "Köter")).encode("latin-1"))
    files = {"--config": good, "--classes": good, option: bad}
    done = CliRunner().invoke(main, ["labels", *(str(part) for pair in files.items() for part in pair)])
    assert isinstance(done.exception, SystemExit)
    assert "bad.xml is not UTF-8" in done.output
    arguments = ["preannotate", str(tmp_path), "--config", str(bad), "--out", str(tmp_path / "out.json")]
    assert "bad.xml is not UTF-8" in CliRunner().invoke(main, arguments).output


def test_files_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    file = tmp_path / "config.xml"
    file.write_text("\ufeff" + view(IMAGE, BOXES), encoding="utf-8")
    done = CliRunner().invoke(main, ["labels", "--config", str(file), "--json"])
    assert json.loads(done.stdout)["unreachable"] == []


def test_pages_are_counted_from_zero() -> None:
    labelling = parse_config(view('<Image name="image" valueList="$images"/>', BOXES))
    refs = task_images({"images": ["http://h/0.jpg", "http://h/1.jpg"]}, labelling)
    assert [(ref.url, ref.item_index) for ref in refs] == [("http://h/0.jpg", 0), ("http://h/1.jpg", 1)]


@pytest.mark.parametrize(
    ("value", "data", "found"),
    [
        ("$image", {"image": "/data/upload/1/a.jpg"}, ["/data/upload/1/a.jpg"]),
        ("$photo.url", {"photo": {"url": "http://h/a.jpg"}}, ["http://h/a.jpg"]),
        ("$photo.url", {"photo.url": "http://h/dotted.jpg"}, ["http://h/dotted.jpg"]),
        ("$photos[1].url", {"photos": [{}, {"url": "http://h/b.jpg"}]}, ["http://h/b.jpg"]),
        ("http://h/$name.jpg", {"name.jpg": "x"}, ["http://h/x"]),
        ("http://h/$name", {"name": "c.jpg"}, ["http://h/c.jpg"]),
        ("http://h/fixed.jpg", {}, ["http://h/fixed.jpg"]),
        ("$image", {"other": "http://h/a.jpg"}, []),
        ("$image", {"image": None}, []),
        ("$image", {"image": " "}, []),
        ("$image", {"image": "\ud800"}, []),
        ("$image", {"image": "http://h/" + "a" * 20_000}, []),
        ("$image", ["no", "mapping"], []),
        ("$image", None, []),
    ],
)
def test_where_an_address_is_looked_up(value: str, data: object, found: list[str]) -> None:
    labelling = parse_config(view(f'<Image name="image" value="{value}"/>', BOXES))
    assert [ref.url for ref in task_images(data, labelling)] == found
