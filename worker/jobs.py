"""What an RQ job runs: addresses of images in, boxes out. Photos that cannot be used cost only themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import tenacity

from worker.contract import Detection, ImageRef, ImageResult, Model, Plan, Request, Result, Tuning
from worker.errors import ImageError, ImageFetchError, QueueError
from worker.images import FetchPolicy, ImageLimits, Photo, decode, fetch
from worker.images.fetch import printable
from worker.regions import cut, put_back

if TYPE_CHECKING:
    from typing import Protocol

    class Localizer(Protocol):
        """What a worker needs of `worker.localizer.Localizer`."""

        @property
        def model(self) -> Model: ...

        def localize(
            self,
            images: Sequence[Photo],
            *,
            classes: Sequence[Sequence[int] | None],
            max_boxes: int = 1,
            min_score: float = 0.0,
        ) -> list[list[Detection]]: ...

        def tuned(self, tuning: Tuning) -> Localizer: ...


Loaded = Photo | ImageError
"""An image as it came: its pixels, or why there are none."""


@dataclass(frozen=True)
class Bench:
    """What a worker process has ready for every job."""

    localizer: Localizer
    policy: FetchPolicy = field(default_factory=FetchPolicy)
    limits: ImageLimits = field(default_factory=ImageLimits)

    def load(self, ref: ImageRef) -> Loaded:
        """Fetch and decode one image, trying again at once where a server stumbled. Raises no ImageError."""
        try:
            return decode(self._fetch(ref.url), self.limits, name=printable(ref.url))
        except ImageError as error:
            return error

    def _fetch(self, url: str) -> bytes:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, ImageFetchError) and e.retryable),
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(self.policy.timeout / 2),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=1.0),
            reraise=True,
        ):
            with attempt:
                return fetch(url, self.policy)
        raise AssertionError("unreachable")

    def localize(
        self,
        requests: Sequence[Request],
        plans: Sequence[Plan],
        loaded: Sequence[Sequence[Loaded]],
        *,
        at_once: int = 8,
        localizer: Localizer | None = None,
    ) -> list[Result]:
        """Results of several requests whose images are loaded, `at_once` images through the network together.

        All plans must agree on `max_boxes` and `min_score`; their classes may differ. `localizer` is the one of
        the project's own tuning, which all of them must share, instead of the worker's.
        """
        localizer = localizer or self.localizer
        photos = [
            (cut(image, ref.region), plan.classes_for(ref))
            for request, plan, images in zip(requests, plans, loaded, strict=True)
            for ref, image in zip(request.images, images, strict=True)
            if isinstance(image, Photo)
        ]
        parts = [photos[first : first + at_once] for first in range(0, len(photos), at_once)]
        found = (
            detections
            for part in parts
            for detections in localizer.localize(
                [photo for photo, _ in part],
                classes=[classes for _, classes in part],
                max_boxes=plans[0].max_boxes,
                min_score=plans[0].min_score,
            )
        )
        version = localizer.model.version
        return [
            Result(
                project=request.project,
                task=request.task,
                model_version=version,
                plan=request.plan,
                images=tuple(
                    ImageResult(
                        ref,
                        image.width,
                        image.height,
                        tuple(put_back(item, image, ref.region) for item in next(found)),
                    )
                    if isinstance(image, Photo)
                    else ImageResult(ref, error=str(image))
                    for ref, image in zip(request.images, images, strict=True)
                ),
            )
            for request, images in zip(requests, loaded, strict=True)
        ]


Opened = Callable[[Request], tuple[Plan, "Localizer"]]
"""Finds a request's plan, and the localizer that it wants."""
_installed: tuple[Bench, Opened] | None = None


def install(bench: Bench, opened: Opened) -> None:
    """What `localize` uses in this process."""
    global _installed
    _installed = bench, opened


def localize(request: dict[str, Any]) -> dict[str, Any]:
    """The function that jobs name: `Request.to_dict()` in, `Result.to_dict()` out.

    Raises QueueError in a process that is no Boxlift worker, and whatever the network raises.
    """
    if _installed is None:
        raise QueueError("this process has no network loaded: start `boxlift worker`, not `rq worker`")
    bench, opened = _installed
    asked = Request.from_dict(request)
    plan, localizer = opened(asked)
    loaded = [bench.load(ref) for ref in asked.images]
    return bench.localize([asked], [plan], [loaded], localizer=localizer)[0].to_dict()
