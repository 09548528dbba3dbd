"""Which jobs run together, and how many."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from worker.batching import FILL, PATIENCE, BatchSize, Task, choose
from worker.contract import BULK, INTERACTIVE, ImageRef, Plan, Request
from worker.errors import ImageDecodeError
from worker.jobs import Loaded
from worker.ledger import Held


def task(
    number: int = 1,
    *,
    queue: str = BULK,
    images: int = 1,
    ready: bool = True,
    suspect: bool = False,
    boxes: int = 1,
    since: float = 0.0,
    localizer: Any = None,
) -> Task:
    held = Held(queue, f"job-{number}", "e", 1, 2, 120.0, 0.0, 60, 60, suspect, b"", since)
    refs = tuple(ImageRef(f"{page}") for page in range(images))
    loading: list[Future[Loaded]] = []
    for _ in refs:
        future: Future[Loaded] = Future()
        if ready:
            future.set_result(ImageDecodeError("no picture is needed here"))
        loading.append(future)
    plan = Plan("<View/>", max_boxes=boxes)
    return Task(held, Request(1, number, "v", plan.digest, refs), plan, localizer, loading, since)


def test_urgent_first_and_alone_with_its_kind() -> None:
    bulk, urgent = [task(n) for n in range(5)], [task(n, queue=INTERACTIVE) for n in range(5, 7)]
    assert choose(bulk + urgent, 8, at=1.0) == urgent


def test_bulk_waits_a_moment_for_an_urgent_image_and_no_longer() -> None:
    bulk, urgent = task(1), task(2, queue=INTERACTIVE, ready=False, since=10.0)
    assert choose([bulk, urgent], 8, at=10.0 + PATIENCE / 2) == []
    assert choose([bulk, urgent], 8, at=10.0 + PATIENCE * 2) == [bulk]


def test_a_batch_waits_a_moment_to_be_full_and_no_longer() -> None:
    here, coming = task(1, since=10.0), task(2, ready=False, since=10.0)
    assert choose([here, coming], 8, at=10.0 + FILL / 2) == []
    assert choose([here, coming], 8, at=10.0 + FILL * 2) == [here]
    assert choose([here, coming], 1, at=10.0) == [here]
    assert choose([here, task(3, boxes=2)], 8, at=10.0) == [here], "others of another kind never fill it"


def test_projects_with_tunings_of_their_own_go_by_themselves() -> None:
    mine, theirs = object(), object()
    tasks = [task(1, localizer=mine), task(2, localizer=theirs), task(3, localizer=mine), task(4)]
    assert choose(tasks, 8, at=1.0) == [tasks[0], tasks[2]]


def test_a_task_with_many_pages_goes_by_itself() -> None:
    many, one = task(1, images=50), task(2)
    assert choose([many, one], 8, at=1.0) == [many]
    assert choose([one, many], 8, at=1.0) == [one]


def test_what_may_have_killed_a_worker_goes_alone() -> None:
    again, fresh = task(1, suspect=True), task(2)
    assert choose([again, fresh], 8, at=1.0) == [again]
    assert choose([fresh, again], 8, at=1.0) == [fresh]


@given(
    st.lists(
        st.builds(
            task,
            st.integers(0, 99),
            queue=st.sampled_from([INTERACTIVE, BULK]),
            images=st.integers(1, 12),
            ready=st.booleans(),
            suspect=st.booleans(),
            boxes=st.integers(1, 2),
            since=st.floats(0, 10),
        ),
        max_size=12,
    ),
    st.integers(1, 16),
    st.floats(10, 11),
)
def test_any_choice_is_a_lawful_batch(tasks: list[Task], size: int, at: float) -> None:
    batch = choose(tasks, size, at=at)
    assert all(one in tasks and one.ready for one in batch)
    assert len({one.kind for one in batch}) <= 1
    assert len(batch) <= 1 or not any(one.alone for one in batch)
    assert len(batch) <= 1 or sum(one.images for one in batch) <= size
    if any(one.ready and one.held.queue == INTERACTIVE for one in tasks):
        assert batch
        assert batch[0].held.queue == INTERACTIVE
    late = at - max((one.since for one in tasks), default=0.0) > max(PATIENCE, FILL)
    if late and any(one.ready for one in tasks):
        assert batch, "nobody waits for ever"


def test_size_follows_speed_and_memory() -> None:
    size = BatchSize(32, 1.0)
    sizes = []
    for _ in range(7):
        sizes.append(size.size)
        size.took(size.size, 0.01 * size.size)
    assert sizes == [1, 2, 4, 8, 16, 32, 32], "10 ms an image: 32 take a third of a second"
    for _ in range(50):
        size.took(8, 0.8)
    assert 8 <= size.size <= 11, "100 ms an image: about ten in a second"
    for _ in range(50):
        size.took(1, 5.0)
    assert size.size == 1, "never less than one"


def warm(largest: int) -> BatchSize:
    """A size that has grown as far as it may, on a device that is fast."""
    size = BatchSize(largest, 60.0)
    for _ in range(10):
        size.took(size.size, 0.01)
    assert size.size == largest
    return size


def test_size_shrinks_to_what_memory_holds_and_grows_again() -> None:
    size = warm(32)
    size.too_large(32)
    assert size.size == 16
    failures = []
    for batch in range(400):  # the memory is gone for the first 100 batches
        if size.size > 16 and batch < 100:
            failures.append(batch)
            size.too_large(size.size)
        size.took(size.size, 0.01)
    assert failures == [64], "tried again, and only after a while"
    assert size.size == 32
    for _ in range(10):
        size.too_large(size.size)
    assert size.size == 1


def test_the_first_batch_and_images_that_failed_to_load_say_nothing_about_speed() -> None:
    size = BatchSize(32, 1.0)
    size.took(1, 20.0)  # compiles, allocates
    size.took(1, 0.01)
    assert size.per_image == 0.01
    size.took(0, 5.0)
    assert size.per_image == 0.01
