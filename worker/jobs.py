"""What an RQ job runs: addresses of images in, boxes out. Photos that cannot be used cost only themselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import tenacity

from worker.contract import Detection, ImageRef, ImageResult, Model, Plan, Request, Result, Tuning
from worker.errors import ImageError, ImageFetchError, QueueError, StudioError
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


log = logging.getLogger("boxlift.worker")

Loaded = Photo | ImageError
"""An image as it came: its pixels, or why there are none."""


@dataclass(frozen=True)
class Bench:
    """What a worker process has ready for every job."""

    localizer: Localizer
    policy: FetchPolicy = field(default_factory=FetchPolicy)
    limits: ImageLimits = field(default_factory=ImageLimits)

    def load(self, ref: ImageRef) -> Loaded:
        """Fetch and decode one image, trying again at once where a server stumbled. Raises nothing: whatever it is
        costs this image only."""
        name = printable(ref.url)
        try:
            return decode(self._fetch(ref.url), self.limits, name=name)
        except ImageError as error:
            return error
        except Exception as error:
            log.exception("%s could not be loaded", name)
            return ImageError(f"{name} cannot be used ({type(error).__name__}): the worker's log says more")

    def _fetch(self, url: str) -> bytes:
        for attempt in tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda e: isinstance(e, ImageFetchError) and e.retryable),
            stop=tenacity.stop_after_attempt(3) | tenacity.stop_after_delay(self.policy.timeout / 2),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=1.0),
            reraise=True,
        ):
            with attempt:
                try:
                    return fetch(url, self.policy)
                except StudioError as error:  # the token had to be refreshed, and Label Studio was away
                    raise ImageFetchError(str(error)) from None
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


def localize(request: dict[str, Any]) -> NoReturn:
    """The function that jobs name. Boxlift's workers know the name and take its argument, `Request.to_dict()`; this
    is what any other RQ worker runs. Raises QueueError."""
    raise QueueError("this process has no network loaded: start `boxlift worker`, not `rq worker`")
