"""Labels learned from a project's corrections: classes after the network's own, under the same labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli.labels import command
from backend.labelling import ONLY_LABEL, SKIP, LabelMap, match_labels, parse_config, with_own_labels
from backend.plans import read_config
from worker.contract import Model

CLASSES = ("tabby", "golden retriever", "beagle", "sports car")
RECTANGLES = '<RectangleLabels name="{name}" toName="{image}">{labels}</RectangleLabels>'


def labels(*names: str) -> str:
    return "".join(name if name.startswith("<") else f'<Label value="{name}"/>' for name in names)


def config(*names: str) -> str:
    control = RECTANGLES.format(name="label", image="image", labels=labels(*names))
    return f'<View><Image name="image" value="$image"/>{control}</View>'


def mapped(xml: str, own: tuple[str, ...], unmatched: str = SKIP) -> LabelMap:
    labelling = parse_config(xml)
    return with_own_labels(match_labels(labelling, CLASSES, unmatched), labelling, own, len(CLASSES))


def reading(xml: str, own: tuple[str, ...], unmatched: str = SKIP):  # type: ignore[no-untyped-def]
    model = Model("boxlift-test-1", "test", CLASSES + own, own=len(own))
    return read_config(xml, model, unmatched)


def test_a_label_that_no_class_reached_takes_its_own_class_and_the_others_keep_theirs() -> None:
    mapping = mapped(config("Zorb", "Dog"), ("Zorb",))
    assert mapping.labels == {"Zorb": (4,), "Dog": (1, 2)}
    assert mapping.unreachable == ()
    assert mapping.classes("image") == (1, 2, 4)
    target = mapping.target("image", 4)
    assert target is not None
    assert target.label == "Zorb"


def test_a_label_that_classes_reach_has_its_own_class_beside_them() -> None:
    mapping = mapped(config("Cat", "Dog"), ("Dog",))
    assert mapping.labels == {"Cat": (0,), "Dog": (1, 2, 4)}


def test_a_label_that_the_config_no_longer_offers_does_not_compete() -> None:
    mapping = mapped(config("Cat"), ("Zorb", "Cat"))
    assert mapping.labels == {"Cat": (0, 5)}
    assert mapping.classes("image") == (0, 5)
    assert mapping.target("image", 4) is None


def test_tags_share_own_labels_only_where_they_offer_them() -> None:
    xml = (
        '<View><Image name="a" value="$a"/><Image name="b" value="$b"/>'
        + RECTANGLES.format(name="on_a", image="a", labels=labels("Zorb", "Cat"))
        + RECTANGLES.format(name="on_b", image="b", labels=labels("Quux"))
        + "</View>"
    )
    mapping = mapped(xml, ("Zorb", "Quux"))
    assert mapping.classes("a") == (0, 4)
    assert mapping.classes("b") == (5,)
    plan = reading(xml, ("Zorb", "Quux")).plan
    assert plan is not None
    assert plan.classes_of == {"a": (0, 4), "b": (5,)}


def test_the_rest_still_goes_where_it_went() -> None:
    mapping = mapped(config("Zorb", '<Label value="Other" model_unmatched="true"/>'), ("Zorb",))
    assert mapping.classes("image") is None, "everything competes, the learned class with it"
    assert [mapping.target("image", index).label for index in (0, 4)] == ["Other", "Zorb"]  # type: ignore[union-attr]


def test_results_carry_a_labels_alias_and_so_do_own_labels() -> None:
    mapping = mapped(config('<Label value="Zorb" alias="z"/>'), ("z",))
    assert mapping.labels == {"z": (4,)}


def test_rectangle_and_labels_beside_it() -> None:
    xml = (
        '<View><Image name="image" value="$image"/><Rectangle name="box" toName="image"/>'
        f'<Labels name="what" toName="image">{labels("Zorb")}</Labels></View>'
    )
    target = mapped(xml, ("Zorb",)).target("image", 4)
    assert target is not None
    assert (target.control.labels_from_name, target.label) == ("what", "Zorb")


@pytest.mark.parametrize("unmatched", [SKIP, ONLY_LABEL])
def test_a_config_is_read_for_a_model_with_own_labels(unmatched: str) -> None:
    read = reading(config("Zorb", "Quux"), ("Zorb",), unmatched)
    assert read.plan is not None
    assert read.plan.classes == (4,)
    assert any('"Quux"' in note for note in read.notes)
    assert not any('"Zorb"' in note for note in read.notes)


def test_an_own_label_is_never_taken_for_a_class_of_the_networks() -> None:
    """A label learned as "tabby" is the project's: "Cat" does not reach it by what WordNet knows of tabbies."""
    mapping = reading(config("Cat", "tabby"), ("tabby",)).mapping
    assert mapping.labels == {"Cat": (), "tabby": (0, 4)}


def test_models_say_how_many_classes_are_own_and_older_ones_have_none() -> None:
    model = Model("v", "n", ("a", "b"), own=1)
    assert Model.from_dict(model.to_dict()) == model
    assert Model.from_dict({"version": "v", "network": "n", "classes": ["a", "b"]}).own == 0


def test_the_command_wants_one_config(tmp_path: Path) -> None:
    file = tmp_path / "config.xml"
    file.write_text(config("Zorb"), encoding="utf-8")
    for arguments in ([], ["--config", str(file), "--project", "1"], ["--project", "1", "--classes", str(file)]):
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 2
        assert "--config" in done.output
