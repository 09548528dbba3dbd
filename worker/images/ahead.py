"""Network inputs made in threads while the network works on those before: for a GPU that would wait for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from torch import Tensor

from worker.images.tensor import to_tensor

if TYPE_CHECKING:
    from PIL import Image

    from worker.images.decode import Photo
    from worker.networks import Preprocessing

THREADS = 4


def tensors(
    photos: Iterable[Image.Image | Photo], preprocessing: Preprocessing, *, ahead: int = 0
) -> Generator[Tensor]:
    """`to_tensor` of each photo in turn. `ahead` is how many are in the making when one is asked for.

    With 0 none is, and no thread: on a processor the network needs all cores. Raises what `to_tensor` raises, when
    the photo's turn comes.
    """
    if not ahead:
        for photo in photos:
            yield to_tensor(photo, preprocessing)
        return
    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="inputs") as pool:
        try:
            for photo in photos:
                waiting.append(pool.submit(to_tensor, photo, preprocessing))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
