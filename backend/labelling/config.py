"""A project's labelling config, read once: which tags take boxes, on which pictures, under which labels."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException
from label_studio_sdk.label_interface.control_tags import ControlTag
from label_studio_sdk.label_interface.interface import LabelInterface

from worker.errors import LabellingError

MAX_CONFIG = 2 << 20
"""Longest labelling config that is read, in characters."""
_TRUE = {"true", "1", "yes"}
_DECLARATION = re.compile(r"^\ufeff?<\?xml\s[^>]*\?>")
"""It may name the encoding of the file that this text was: none any more, and parsers of text refuse it."""


@dataclass(frozen=True, slots=True)
class Label:
    """One label of a control: what a result carries, and the words that say which classes it takes."""

    value: str
    """Its alias if it has one, else its value: what Label Studio stores."""
    names: tuple[str, ...]
    predicted_values: tuple[str, ...] = ()
    """The model's classes that it stands for, as the config's author listed them."""
    catch_all: bool = False
    """Marked with model_unmatched="true": takes what no other label takes."""


@dataclass(frozen=True, slots=True)
class Image:
    """One Image tag: its name, and where a task holds its address (`pages`: a list of addresses)."""

    name: str
    value: str
    pages: bool = False


@dataclass(frozen=True, slots=True)
class Control:
    """One way to draw boxes: a RectangleLabels tag, or a Rectangle tag with the Labels tag beside it."""

    from_name: str
    """The tag that carries the rectangle."""
    to_names: tuple[str, ...]
    """Image tags that it draws on."""
    labels: tuple[Label, ...]
    labels_from_name: str | None = None
    """The Labels tag beside a Rectangle tag; None for RectangleLabels, which carries both."""
    bare: bool = False
    """A Rectangle tag without any labels: boxes of whatever is there."""
    min_score: float = 0.0
    """model_score_threshold: boxes below this score are left out."""
    max_boxes: int = 1
    """model_max_boxes: most boxes on one picture."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """What Boxlift can do with a config. Without `controls` it predicts nothing, and `problems` says why."""

    controls: tuple[Control, ...] = ()
    images: tuple[Image, ...] = ()
    smart: bool = False
    """Whether a tag asks while somebody draws (smart="true"): a click or a rough rectangle."""
    problems: tuple[str, ...] = ()

    def controls_of(self, to_name: str) -> tuple[Control, ...]:
        """Controls that draw on one Image tag, in the config's order."""
        return tuple(control for control in self.controls if to_name in control.to_names)

    def controls_from(self, from_name: str) -> tuple[Control, ...]:
        """Controls of one tag: several for a Rectangle with several Labels tags beside it."""
        return tuple(control for control in self.controls if control.from_name == from_name)

    @property
    def drawn_images(self) -> tuple[Image, ...]:
        """Image tags that at least one control draws on."""
        return tuple(image for image in self.images if self.controls_of(image.name))


@functools.lru_cache(maxsize=256)
def parse_config(xml: str) -> Labelling:
    """Read a labelling config. Raises LabellingError where it is no XML, or XML that must not be read.

    Document types and entities are refused before any other parser sees the text.
    """
    if not xml.strip():
        return Labelling(problems=("the labelling config is empty",))
    if len(xml) > MAX_CONFIG:
        raise LabellingError(
            f"the labelling config has {len(xml)} characters: {MAX_CONFIG} is the most that is read"
        )
    try:
        text = _DECLARATION.sub("", xml)
        root = defusedxml.ElementTree.fromstring(text.encode(), forbid_dtd=True)
        interface = LabelInterface(text)
    except DefusedXmlException:
        raise LabellingError("the labelling config declares a document type or entities: remove them") from None
    except ParseError as error:
        raise LabellingError(
            f"the labelling config is not well-formed XML ({error}): correct it in Settings"
        ) from None
    except Exception as error:  # noqa: BLE001 - the SDK raises whatever a strange config makes it trip over
        raise LabellingError(
            f"the labelling config cannot be read ({type(error).__name__}): correct it in Settings"
        ) from None
    repeated = {tag.get("name") for part in root.iter() if _is_repeater(part.tag) for tag in part.iter()}
    return _read(interface, repeated - {None})


def _is_repeater(tag: object) -> bool:
    return isinstance(tag, str) and tag.lower() == "repeater"


def _read(interface: LabelInterface, repeated: Collection[str | None]) -> Labelling:
    """`repeated` are the names of tags that a Repeater makes several of, with other names on each page."""
    images = tuple(
        Image(str(tag.name), tag.attr.get("valueList") or tag.attr["value"], pages=bool(tag.attr.get("valueList")))
        for tag in interface.objects
        if tag.tag.lower() == "image" and tag.name not in repeated
    )
    every = [tag for tag in interface.controls if tag.name not in repeated]
    tags = {name.lower(): [tag for tag in every if tag.tag.lower() == name] for name in _TAGS}
    problems: list[str] = []
    controls = [control for tag in tags["rectanglelabels"] for control in _control(tag, images, problems)]
    controls += [control for tag in tags["rectangle"] for control in _pairs(tag, tags["labels"], images, problems)]
    if repeated:
        problems.append(
            'Repeater is not read: for pages use one Image tag with valueList="$images", a list of addresses'
        )
    if not images:
        problems.append("no Image tag with a value: Boxlift reads pictures only")
    if not any(tags[name] for name in ("rectanglelabels", "rectangle")):
        problems.append("no RectangleLabels tag, and no Rectangle with Labels: add one to get boxes")
    smart = [
        tag
        for name in ("keypointlabels", "keypoint", "rectanglelabels", "rectangle")
        for tag in tags[name]
        if tag.attr.get("smart", "").lower() in _TRUE
    ]
    labelling = Labelling(tuple(controls), images, bool(smart), tuple(dict.fromkeys(problems)))
    return replace(labelling, problems=labelling.problems + tuple(_unanswered(labelling, smart)))


def _unanswered(labelling: Labelling, smart: Sequence[ControlTag]) -> Iterator[str]:
    """Labels that a smart tool offers, and that no box can have."""
    for tag in smart:
        for to_name in set(_to_names(tag)) & {image.name for image in labelling.images}:
            controls = labelling.controls_of(to_name)
            offered = {name for control in controls for label in control.labels for name in label.names}
            missing = [label for label in tag.labels or () if label not in offered]
            if controls and missing and not any(control.bare for control in controls):
                told = ", ".join(f'"{label}"' for label in missing)
                yield f"{tag.tag} {tag.name!r} offers {told}, which no box on {to_name!r} can have: add it to both"


_TAGS = ("rectanglelabels", "rectangle", "labels", "keypointlabels", "keypoint")


def _control(
    tag: ControlTag, images: tuple[Image, ...], problems: list[str], labels: ControlTag | None = None
) -> tuple[Control, ...]:
    """The control of a tag, or none with the reason appended to `problems`."""
    source = labels if labels is not None else tag
    attributes: dict[str, str] = {**(source.attr or {}), **(tag.attr or {})}
    if attributes.get("model_skip", "").lower() in _TRUE:
        return ()
    names = {image.name for image in images}
    to_names = tuple(name for name in _to_names(tag) if name in names)
    if not to_names:
        problems.append(f"{tag.tag} {tag.name!r} draws on no Image tag: check its toName")
        return ()
    bare = labels is None and str(tag.tag).lower() == "rectangle"
    if not bare and not source.labels:
        dynamic = " (labels out of task data are not read)" if source.dynamic_value else ""
        problems.append(f"{source.tag} {source.name!r} has no Label{dynamic}: add the labels to the config")
        return ()
    control = Control(
        from_name=str(tag.name),
        to_names=to_names,
        labels=tuple(_label(value, item.attr) for value, item in (source.labels_attrs or {}).items()),
        labels_from_name=str(labels.name) if labels is not None else None,
        bare=bare,
        min_score=_number(attributes, "model_score_threshold", 0.0, 1.0, tag, problems),
        max_boxes=int(_number(attributes, "model_max_boxes", 1, 100, tag, problems)),
    )
    return (control,)


def _to_names(tag: ControlTag) -> tuple[str, ...]:
    return tuple(name.strip() for name in tag.to_name or ())


def _pairs(
    tag: ControlTag, labels: list[ControlTag], images: tuple[Image, ...], problems: list[str]
) -> Iterator[Control]:
    """A Rectangle tag with each Labels tag beside it: all draw the same rectangles, each offers its own labels."""
    partners: list[ControlTag | None] = [other for other in labels if set(_to_names(other)) & set(_to_names(tag))]
    for partner in partners or [None]:
        yield from _control(tag, images, problems, partner)


def _label(value: str, attributes: Mapping[str, str]) -> Label:
    names = dict.fromkeys(name for name in (attributes.get("value"), attributes.get("alias"), value) if name)
    listed = (part.strip() for part in attributes.get("predicted_values", "").split(","))
    return Label(
        value=value,
        names=tuple(names),
        predicted_values=tuple(part for part in listed if part),
        catch_all=attributes.get("model_unmatched", "").lower() in _TRUE,
    )


def _number(
    attributes: Mapping[str, str], name: str, low: float, high: float, tag: ControlTag, problems: list[str]
) -> float:
    """An attribute's number between `low` (also its default) and `high`; anything else is a problem, not used."""
    text = attributes.get(name, "").strip()
    if not text:
        return low
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        problems.append(f"{tag.tag} {tag.name!r}: {name} is {text!r}, must be a number from {low:g} to {high:g}")
        return low
    return number
