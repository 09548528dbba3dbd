"""Labels ↔ classes: what a label takes, who wins a class, and what nobody reaches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli.labels import command
from backend.labelling import ONLY_LABEL, SKIP, LabelMap, match_labels, parse_config
from backend.labelling.imagenet import taxonomy

NAMES = taxonomy().names
DOGS = range(151, 269)
"""Indices of ImageNet's breeds of domestic dog: they stand together."""
WILD_DOGS = (273, 274, 275)


def config(*labels: str, control: str = "") -> str:
    tags = "".join(label if label.startswith("<") else f'<Label value="{label}"/>' for label in labels)
    return (
        '<View><Image name="image" value="$image"/>'
        f'<RectangleLabels name="label" toName="image" {control}>{tags}</RectangleLabels></View>'
    )


def match(*labels: str, unmatched: str = SKIP, classes: tuple[str, ...] = NAMES) -> LabelMap:
    return match_labels(parse_config(config(*labels)), classes, unmatched)


def test_the_table_is_whole() -> None:
    table = taxonomy()
    assert len(table.wnids) == len(table.names) == len(set(table.wnids)) == 1000
    assert all(parent in table.synsets for synset in table.synsets.values() for parent in synset.parents)
    entity = "n00001740"
    assert all(entity in table.ancestors(wnid) for wnid in table.wnids)


def test_the_table_is_in_the_order_of_published_photos(shared: Path) -> None:
    lines = (shared / "data" / "ilsvrc" / "boxes.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert taxonomy().wnids[line["class_index"]] == line["wnid"]


@pytest.mark.parametrize(
    ("label", "classes"),
    [
        ("Pug", ["pug"]),
        ("pugs", ["pug"]),
        ("golden_retriever", ["golden retriever"]),
        ("Hot Dog", ["hotdog"]),
        ("n02123045", []),
        ("cell phone", ["cellular telephone"]),
        ("Mice", ["mouse"]),
        ("Wolves", ["coyote", "red wolf", "timber wolf", "white wolf"]),
        ("Unicorn", []),
        ("", []),
        ("猫", []),
    ],
)
def test_what_one_label_takes(label: str, classes: list[str]) -> None:
    found = match(label or "<Label value='-'/>")
    assert sorted(NAMES[index] for index in next(iter(found.labels.values()))) == sorted(classes)


def test_dog_covers_the_breeds() -> None:
    # WordNet's 118 domestic breeds, and the three wild dogs that ILSVRC's and Stanford Dogs' 120 breeds take in.
    assert [NAMES[index] for index in WILD_DOGS] == ["dingo", "dhole", "African hunting dog"]
    assert match("Dog").labels["Dog"] == (*DOGS, *WILD_DOGS)
    assert len(set(match("dogs").labels["dogs"]) - {NAMES.index("dalmatian")}) == 120


def test_wild_dogs_are_dogs_but_rather_what_is_more_specific() -> None:
    labels = match("Canine", "Dog", "Wolf", "Dingo", "Domestic animal").labels
    assert labels["Dog"] == (*DOGS, *(index for index in WILD_DOGS if NAMES[index] != "dingo"))
    assert labels["Dingo"] == (NAMES.index("dingo"),)
    assert NAMES.index("red fox") in labels["Canine"]
    assert match("Dog", "Wild dog").labels["Wild dog"] == WILD_DOGS
    assert not set(match("Domestic animal").labels["Domestic animal"]) & set(WILD_DOGS)


def test_vehicle_covers_cars_and_trucks() -> None:
    names = {NAMES[index] for index in match("Vehicle").labels["Vehicle"]}
    assert names >= {"cab", "sports car", "jeep", "pickup", "garbage truck", "airliner", "canoe", "mountain bike"}
    assert not names & {"tabby", "banana", "car wheel"}


def test_the_most_specific_label_wins_whatever_the_order() -> None:
    for labels in (("Animal", "Dog", "Pug"), ("Pug", "Dog", "Animal")):
        found = match(*labels).labels
        assert found["Pug"] == (254,)
        assert set(found["Dog"]) == {*DOGS, *WILD_DOGS} - {254}
        assert {281, 0, 340} <= set(found["Animal"])
        taken = [index for classes in found.values() for index in classes]
        assert len(taken) == len(set(taken))


def test_a_label_below_another_wins_also_by_a_longer_way() -> None:
    found = match("Animal", "Dog")  # a greyhound is a racer, which is an animal: fewer steps than up to dog
    assert {NAMES[index] for index in found.labels["Dog"]} >= {"Italian greyhound", "whippet"}


def test_the_commonest_meaning_counts() -> None:
    cars = {NAMES[index] for index in match("Car").labels["Car"]}
    assert "sports car" in cars
    assert "passenger car" not in cars


def test_predicted_values_come_first_and_are_complete() -> None:
    found = match('<Label value="Cat" predicted_values="tabby,tiger cat"/>', "Tabby").labels
    assert found == {"Cat": (281, 282), "Tabby": ()}
    assert match('<Label value="Thing" predicted_values="dog"/>', "Pug").labels["Pug"] == (254,)
    misspelt = match('<Label value="Pug" predicted_values="pugg"/>')
    assert misspelt.labels["Pug"] == (254,)


def test_unmatched_classes() -> None:
    assert match("Defect").classes("image") == ()
    assert match("Defect").unreachable == ("Defect",)
    only = match("Defect", unmatched=ONLY_LABEL)
    assert only.classes("image") is None
    assert only.unreachable == ()
    target = only.target("image", 7)
    assert target is not None
    assert target.label == "Defect"
    assert match("Defect", "Scratch", unmatched=ONLY_LABEL).classes("image") == ()
    marked = match("Dog", '<Label value="Other" model_unmatched="true"/>')
    assert [getattr(marked.target("image", index), "label", None) for index in (200, 281)] == ["Dog", "Other"]


def test_controls_on_one_image_share_its_classes_and_other_images_do_not() -> None:
    labelling = parse_config(
        '<View><Image name="a" value="$a"/><Image name="b" value="$b"/>'
        '<RectangleLabels name="pets" toName="a"><Label value="Dog"/></RectangleLabels>'
        '<RectangleLabels name="breeds" toName="a"><Label value="Pug"/></RectangleLabels>'
        '<RectangleLabels name="all" toName="b"><Label value="Dog"/></RectangleLabels></View>'
    )
    found = match_labels(labelling, NAMES)
    assert [t.control.from_name for i in (151, 254) if (t := found.target("a", i))] == ["pets", "breeds"]
    assert [t.control.from_name for i in (151, 254) if (t := found.target("b", i))] == ["all", "all"]
    assert found.target("a", 281) is None


def test_custom_classes_match_by_name_and_kind() -> None:
    found = match("Weld seam", "Vehicle", "Rust", classes=("weld_seam", "RUST", "pickup truck", "gizmo"))
    assert found.labels == {"Weld seam": (0,), "Vehicle": (2,), "Rust": (1,)}


def test_the_command_prints_the_whole_mapping(tmp_path: Path) -> None:
    file = tmp_path / "config.xml"
    file.write_text(config("Dog", "Pug", "Unicorn"))
    done = CliRunner().invoke(command, ["--config", str(file), "--json"])
    assert done.exit_code == 0
    printed = json.loads(done.stdout)
    assert printed["labels"]["Pug"] == [254]
    assert printed["labels"]["Dog"] == [index for index in (*DOGS, *WILD_DOGS) if index != 254]
    assert printed["unreachable"] == ["Unicorn"]
    assert set(printed) == {"labels", "unreachable"}
    shown = CliRunner().invoke(command, ["--config", str(file)])
    assert "No class reaches" in shown.stdout
