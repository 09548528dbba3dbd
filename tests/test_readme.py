"""README says what is true: every setting is in it as it is, and it names none that does not exist."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from backend.cli import main
from backend.demo.photos import photos
from backend.settings import Settings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SETTINGS = {item.metadata["env"]: item for item in dataclasses.fields(Settings)}
OTHERS = {"BOXLIFT_STUDIO_COMMAND", "BOXLIFT_SHARED"}
"""Variables of the demo and of the tests."""
CONFIG = (
    '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
    '<Label value="Animal" model_unmatched="true"/></RectangleLabels></View>'
)


def test_every_setting_is_in_the_readme() -> None:
    rows = dict(re.findall(r"^\| `([A-Z_]+)` \| .* \| (.*) \|$", README, re.MULTILINE))
    assert {name: item.metadata["help"] for name, item in SETTINGS.items()} == rows


def test_table_is_the_one_that_the_settings_give() -> None:
    table = subprocess.run(
        [sys.executable, "scripts/settings_table.py"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert table.strip() in README, "run `python scripts/settings_table.py --write`"


def test_the_readme_names_no_other_setting() -> None:
    named = set(re.findall(r"\b(?:BOXLIFT|LABEL_STUDIO|REDIS)_[A-Z_]+\b", README))
    files = {f"{name}_FILE" for name, item in SETTINGS.items() if item.metadata["secret"]}
    assert named <= set(SETTINGS) | files | OTHERS


def code() -> list[str]:
    """Everything that README shows as code, each on one line and without its comment."""
    inline = [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", README)]
    block = [re.split(r"\s#", line)[0].strip() for line in README.splitlines() if line.startswith("    ")]
    return list(dict.fromkeys(inline + block))


COMMAND_LINES = [line for line in code() if re.search(r"(^|\s)boxlift [a-z]", line) and " is " not in line]
RECIPES = [
    line
    for line in COMMAND_LINES
    if re.match(r"boxlift (localize .*\.jpg|labels --config|preannotate \w+[./])", line)
]
"""Those that need neither Label Studio nor weights that are downloaded."""


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_commands_and_options_exist(line: str) -> None:
    """Each `boxlift COMMAND … --option`, wrapped lines included, is a command with such an option."""
    words = shlex.split(line)
    words = words[words.index("boxlift") + 1 :]
    command, context = main, click.Context(main)
    while isinstance(command, click.Group) and words and re.fullmatch(r"[a-z-]+", words[0]):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command, context = found, click.Context(found, parent=context)
    known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
    assert {word for word in words if word.startswith("-")} <= known


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 8, "what a code block looks like has changed, or they are gone"


@pytest.mark.slow
@pytest.mark.parametrize("line", RECIPES)
def test_recipes_do_what_they_say(line: str, tmp_path: Path) -> None:
    """As written, in a folder that has what they name; with the network that needs no download."""
    files = {photo.path.stem: photo.path for photo in photos()}
    (tmp_path / "photos").mkdir()
    for name, photo in files.items():
        shutil.copy(photo, tmp_path / f"{name}.jpg")
    for name in ("koala", "owl"):
        shutil.copy(files[name], tmp_path / "photos")
    shutil.copy(files["koala"], tmp_path / "cat.jpg")
    tasks = [{"id": 1, "data": {"image": str(tmp_path / "photos" / "koala.jpg")}}]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")
    for name in ("config.xml", "FILE"):
        (tmp_path / name).write_text(CONFIG, encoding="utf-8")
    env = {name: text for name, text in os.environ.items() if not name.startswith(("BOXLIFT_", "REDIS_"))}
    env |= {"BOXLIFT_NETWORK": "efficientnet_lite0", "BOXLIFT_IMAGE_ROOTS": str(tmp_path)}
    words = shlex.split(line)[1:]
    done = subprocess.run(
        [sys.executable, "-m", "backend.cli", *words],
        cwd=tmp_path,
        env=env | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    if "--panels" in words:
        assert len(list((tmp_path / "out").iterdir())) == sum(word.endswith(".jpg") for word in words)
    elif "--out" in words:
        told = json.loads((tmp_path / words[words.index("--out") + 1]).read_text(encoding="utf-8"))
        assert told
        assert "Animal" in json.dumps(told)
    elif "--json" in words:
        assert json.loads(done.stdout)
    else:
        assert done.stdout.strip()


def test_links_inside_the_repository_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).is_file(), target
