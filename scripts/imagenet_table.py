"""Write backend/labelling/imagenet.json: ImageNet's 1000 classes, their synonyms and everything they are a kind of;
and worker/networks/imagenet.txt: their names, for networks that know these classes.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wn
    python scripts/imagenet_table.py wn/usr/share/wordnet wn/usr/share/doc/wordnet-base/copyright

ImageNet's ids are byte offsets into WordNet 3.0's data.noun, which Debian's wordnet-base carries unchanged. The
order of the classes is that of timm's list of synsets, the names are torchvision's. Both packages are needed here.
"""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from importlib import resources
from pathlib import Path

import click
from torchvision.models._meta import _IMAGENET_CATEGORIES

ALSO = {"n02084071": ["n02115335"]}
"""Words that people use more widely than WordNet: their meaning → what it takes in as well.

dog, domestic dog: wild dog (dingo, dhole, African hunting dog). WordNet has these beside the dog, under canine,
which leaves 118 of ILSVRC's classes as dogs. ILSVRC 2012's own task of telling breeds apart, and Stanford Dogs,
count 120: without the Dalmatian, but with these three. Together they are 121.
"""
ROOT = Path(__file__).parent.parent
TARGET = ROOT / "backend" / "labelling"


def read_nouns(folder: Path) -> dict[int, tuple[list[str], list[int]]]:
    """WordNet's nouns: byte offset → (lemmas, offsets of the hypernyms). Format: wndb(5WN)."""
    nouns = {}
    for line in (folder / "data.noun").read_text().splitlines():
        if line.startswith("  "):  # the licence on top
            continue
        fields = line.split(" | ")[0].split()
        count = int(fields[3], 16)
        lemmas = [fields[4 + 2 * i].replace("_", " ") for i in range(count)]
        pointers = fields[5 + 2 * count :]
        parents = [int(pointers[i + 1]) for i in range(0, len(pointers) - 3, 4) if pointers[i] in ("@", "@i")]
        nouns[int(fields[0])] = (lemmas, parents)
    return nouns


def read_senses(folder: Path) -> dict[str, list[int]]:
    """Lemma → offsets of its meanings, the most frequent first (index.noun)."""
    senses = {}
    for line in (folder / "index.noun").read_text().splitlines():
        if not line.startswith("  "):
            fields = line.split()
            senses[fields[0].replace("_", " ")] = [int(offset) for offset in fields[-int(fields[2]) :]]
    return senses


def exceptions(folder: Path, lemmas: set[str]) -> dict[str, str]:
    """Irregular plurals of the lemmas that the table holds: plural → singular (noun.exc)."""
    pairs = (line.split()[:2] for line in (folder / "noun.exc").read_text().splitlines())
    irregular = {plural.replace("_", " "): single.replace("_", " ") for plural, single in pairs}
    return {plural: single for plural, single in irregular.items() if single in lemmas}


def wnid(offset: int) -> str:
    return f"n{offset:08d}"


def licence(copyright_file: Path) -> str:
    """WordNet's licence out of Debian's machine-readable copyright file."""
    text = copyright_file.read_text().split("License: WordNet3.0\n")[1].split("\nFiles:")[0]
    return textwrap.dedent("\n".join("" if line.strip() == "." else line for line in text.splitlines())).strip()


@click.command()
@click.argument("wordnet", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("copyright_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(wordnet: Path, copyright_file: Path) -> None:
    """Write the table and its licence from the folder WORDNET and Debian's COPYRIGHT_FILE."""
    nouns = read_nouns(wordnet)
    listed = resources.files("timm").joinpath("data/_info/imagenet_synsets.txt").read_text().split()
    classes = [int(name[1:]) for name in listed]
    assert len(classes) == len(_IMAGENET_CATEGORIES) == 1000

    wanted, waiting = set(classes), list(classes)
    while waiting:
        for parent in nouns[waiting.pop()][1]:
            if parent not in wanted:
                wanted.add(parent)
                waiting.append(parent)
    lemmas = {lemma.lower() for offset in wanted for lemma in nouns[offset][0]}
    senses = read_senses(wordnet)
    shared = {lemma for lemma, n in Counter(k.lower() for o in wanted for k in nouns[o][0]).items() if n > 1}
    table = {
        "source": "WordNet 3.0 (Princeton University; see imagenet.LICENSE). Order of the classes: ILSVRC 2012. "
        "Names: torchvision. Written by scripts/imagenet_table.py",
        "classes": [[wnid(offset), name] for offset, name in zip(classes, _IMAGENET_CATEGORIES, strict=True)],
        "synsets": {
            wnid(offset): [nouns[offset][0], [wnid(parent) for parent in nouns[offset][1]]]
            for offset in sorted(wanted)
        },
        "senses": {
            lemma: [wnid(offset) for offset in senses[lemma] if offset in wanted] for lemma in sorted(shared)
        },
        "also": ALSO,
        "plurals": dict(sorted(exceptions(wordnet, lemmas).items())),
    }
    lines = [json.dumps(value, ensure_ascii=False, separators=(",", ":")) for value in table.values()]
    body = ",\n".join(f'"{key}":{line}' for key, line in zip(table, lines, strict=True))
    (TARGET / "imagenet.json").write_text("{" + body.replace("],[", "],\n[").replace("]],", "]],\n") + "}\n")
    (TARGET / "imagenet.LICENSE").write_text(
        "imagenet.json is made from the nouns of WordNet 3.0, as in Debian's package wordnet-base.\n\n"
        + licence(copyright_file)
        + "\n"
    )
    names = "\n".join(_IMAGENET_CATEGORIES) + "\n"
    (ROOT / "worker" / "networks" / "imagenet.txt").write_text(names, encoding="utf-8")
    click.echo(f"{len(table['classes'])} classes, {len(wanted)} synsets, {len(table['plurals'])} plurals")


if __name__ == "__main__":
    main()
