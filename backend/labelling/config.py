"""A project's labelling config, read once: which tags take boxes, on which pictures, under which labels."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import ParseError

import defusedxml.ElementTree
from defusedxml.common import DefusedXmlException
from label_studio_sdk.label_interface.control_tags import ControlTag
from label_studio_sdk.label_interface.interface import LabelInterface

from worker.errors import LabellingError

MAX_CONFIG = 2 << 20
"""Longest labelling config that is read, in characters."""
_TRUE = {"true", "1", "yes"}


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
class SmartTag:
    """A tag that asks while somebody draws (smart="true"): a click or a rough rectangle."""

    kind: str
    """`keypoint` or `rectangle`."""
    from_name: str
    to_names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labelling:
    """What Boxlift can do with a config. Without `controls` it predicts nothing, and `problems` says why."""

    controls: tuple[Control, ...] = ()
    images: tuple[Image, ...] = ()
    smart: tuple[SmartTag, ...] = ()
    problems: tuple[str, ...] = ()

    def controls_of(self, to_name: str) -> tuple[Control, ...]:
        """Controls that draw on one Image tag, in the config's order."""
        return tuple(control for control in self.controls if to_name in control.to_names)

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
        defusedxml.ElementTree.fromstring(xml.encode(), forbid_dtd=True)
        interface = LabelInterface(xml)
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
    return _read(interface)


def _read(interface: LabelInterface) -> Labelling:
    images = tuple(
        Image(str(tag.name), tag.attr.get("valueList") or tag.attr["value"], pages=bool(tag.attr.get("valueList")))
        for tag in interface.objects
        if tag.tag.lower() == "image"
    )
    tags = {name.lower(): [tag for tag in interface.controls if tag.tag.lower() == name] for name in _TAGS}
    problems: list[str] = []
    controls = [
        *(_control(tag, images, problems) for tag in tags["rectanglelabels"]),
        *(_pair(tag, tags["labels"], images, problems) for tag in tags["rectangle"]),
    ]
    if not images:
        problems.append("no Image tag with a value: Boxlift reads pictures only")
    if not any(tags[name] for name in ("rectanglelabels", "rectangle")):
        problems.append("no RectangleLabels tag, and no Rectangle with Labels: add one to get boxes")
    smart = [
        SmartTag("keypoint" if name.startswith("keypoint") else "rectangle", str(tag.name), _to_names(tag))
        for name in ("keypointlabels", "keypoint", "rectanglelabels", "rectangle")
        for tag in tags[name]
        if tag.attr.get("smart", "").lower() in _TRUE
    ]
    return Labelling(tuple(c for c in controls if c), images, tuple(smart), tuple(problems))


_TAGS = ("rectanglelabels", "rectangle", "labels", "keypointlabels", "keypoint")


def _control(
    tag: ControlTag, images: tuple[Image, ...], problems: list[str], labels: ControlTag | None = None
) -> Control | None:
    """A control out of its tag, or None with the reason appended to `problems`."""
    source = labels if labels is not None else tag
    attributes: dict[str, str] = {**(source.attr or {}), **(tag.attr or {})}
    if attributes.get("model_skip", "").lower() in _TRUE:
        return None
    names = {image.name for image in images}
    to_names = tuple(name for name in _to_names(tag) if name in names)
    if not to_names:
        problems.append(f"{tag.tag} {tag.name!r} draws on no Image tag: check its toName")
        return None
    bare = labels is None and str(tag.tag).lower() == "rectangle"
    if not bare and not source.labels:
        dynamic = " (labels out of task data are not read)" if source.dynamic_value else ""
        problems.append(f"{source.tag} {source.name!r} has no Label{dynamic}: add the labels to the config")
        return None
    return Control(
        from_name=str(tag.name),
        to_names=to_names,
        labels=tuple(_label(value, item.attr) for value, item in (source.labels_attrs or {}).items()),
        labels_from_name=str(labels.name) if labels is not None else None,
        bare=bare,
        min_score=_number(attributes, "model_score_threshold", 0.0, 1.0, tag, problems),
        max_boxes=int(_number(attributes, "model_max_boxes", 1, 100, tag, problems)),
    )


def _to_names(tag: ControlTag) -> tuple[str, ...]:
    return tuple(name.strip() for name in tag.to_name or ())


def _pair(
    tag: ControlTag, labels: list[ControlTag], images: tuple[Image, ...], problems: list[str]
) -> Control | None:
    partners = [other for other in labels if set(_to_names(other)) & set(_to_names(tag))]
    return _control(tag, images, problems, partners[0] if partners else None)


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
