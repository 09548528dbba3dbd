"""The pictures of a task: each Image tag's value, looked up in the task's data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from backend.labelling.config import Image, Labelling
from worker.contract import ImageRef, is_data_uri

MAX_PAGES = 512
"""Most pictures of one task that are looked at."""
MAX_ADDRESS = 16_384
"""Longest address of a picture, in characters: jobs carry it. `data:` URIs may be of any length, jobs do not."""
_STEP = re.compile(r"[^.\[\]]+")
_VARIABLE = re.compile(r"\$([A-Za-z_][\w.\[\]-]*)")


def task_images(data: object, labelling: Labelling) -> tuple[ImageRef, ...]:
    """Addresses of all pictures of a task that boxes can be drawn on, in the config's order, pages counted from 0.

    `data` is the task's `data` as Label Studio sends it; values that are no addresses are left out.
    """
    found = (ref for image in labelling.drawn_images for ref in _addresses(image, data))
    return tuple(ref for _, ref in zip(range(MAX_PAGES), found, strict=False))


def _addresses(image: Image, data: object) -> Iterator[ImageRef]:
    value = _resolve(image.value, data)
    if isinstance(value, list):  # a list is shown as pages, whichever attribute names it
        for page, address in enumerate(value):
            if _usable(address):
                yield ImageRef(address, image.name, page)
    elif _usable(value):
        yield ImageRef(value, image.name, 0 if image.pages else None)


def _usable(address: object) -> TypeGuard[str]:
    """Whether this can be an address: a string with something in it that UTF-8 can carry."""
    if not isinstance(address, str) or not address.strip():
        return False
    if len(address) > MAX_ADDRESS and not is_data_uri(address):
        return False
    try:
        address.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can smuggle in
        return False
    return True


def _resolve(value: str, data: object) -> object:
    """`$key`, `$nested.key`, `$list[0].key`, or text with such variables in it; None where the data lacks one."""
    whole = _VARIABLE.fullmatch(value)
    if whole:
        return _lookup(whole[1], data)
    if "$" not in value:
        return value
    parts = [_lookup(name, data) for name in _VARIABLE.findall(value)]
    if not all(isinstance(part, str | int) for part in parts):
        return None
    rest = iter(parts)
    return _VARIABLE.sub(lambda _: str(next(rest)), value)


def _lookup(path: str, data: object) -> object:
    if isinstance(data, Mapping) and path in data:  # a key may hold dots itself
        return data[path]
    here: object = data
    for step in _STEP.findall(path):
        if isinstance(here, Mapping):
            here = here.get(step)
        elif isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        else:
            return None
    return here
