"""The demo's photos and the labelling config for them. `photos/photos.json` names each one's origin and licence."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

FOLDER = Path(__file__).parent / "photos"

LABELS = {
    "Bear": ("brown bear", "American black bear", "ice bear", "sloth bear"),
    "Bison": ("bison",),
    "Cat": ("tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"),
    "Cup": ("cup", "coffee mug", "espresso"),
    "Dog": ("German shepherd", "malinois", "Border collie", "golden retriever", "beagle"),
    "Duck": ("drake", "goose", "red-breasted merganser"),
    "Frying pan": ("frying pan", "wok"),
    "Hammer": ("hammer",),
    "Kangaroo": ("wallaby",),
    "Koala": ("koala",),
    "Owl": ("great grey owl",),
    "Panda": ("giant panda",),
    "Parrot": ("macaw", "African grey", "lorikeet", "sulphur-crested cockatoo"),
    "Sheep": ("ram", "bighorn"),
}
"""Label of the project → the ImageNet classes that it stands for."""

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324")
"""Of the labels in turn: they have to stand out from photos."""


@dataclass(frozen=True)
class Photo:
    """One photo of the demo, as `photos.json` describes it."""

    file: str
    label: str
    """The label of `LABELS` that its main object deserves."""
    author: str
    licence: str
    source: str
    """Where the photographer published it."""
    package: str
    """The package that this copy came from."""

    @property
    def path(self) -> Path:
        """The JPEG file."""
        return FOLDER / self.file


def photos() -> tuple[Photo, ...]:
    """All photos, in the order of their names."""
    return tuple(Photo(**entry) for entry in json.loads((FOLDER / "photos.json").read_text(encoding="utf-8")))


def label_config() -> str:
    """RectangleLabels over one image; `predicted_values` names the classes behind each label."""
    labels = "\n".join(
        f"    <Label value={quoteattr(label)} predicted_values={quoteattr(','.join(classes))}"
        f" background={quoteattr(COLOURS[number % len(COLOURS)])}/>"
        for number, (label, classes) in enumerate(LABELS.items())
    )
    return (
        "<View>\n"
        '  <Image name="image" value="$image" zoom="true"/>\n'
        '  <RectangleLabels name="label" toName="image" strokeWidth="3">\n'
        f"{labels}\n"
        "  </RectangleLabels>\n"
        "</View>\n"
    )
