"""How well labels that a network does not know are learned from a few annotated photos, and what their boxes are.

    python scripts/custom_labels.py ../shared/data/ilsvrc --features /tmp/features --boxes 25
    python scripts/custom_labels.py ../shared/data/coco --features /tmp/features
    python scripts/custom_labels.py ../shared/data/ilsvrc --features /tmp/features --network vgg16 --weights FILE

Labels are kinds of things (WordNet's for ILSVRC; COCO's largest object), under names that no class reaches: nothing
is predicted without learning. For each set of labels, and several times with other photos, SHOTS photos of each
label are the corrections; the label of up to 100 others is then predicted from the whole photo, as in workers.
Boxes of such photos are drawn through the head and, class-agnostic, through the network as it was.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from scipy.stats import binomtest

from backend.labelling.imagenet import taxonomy
from worker.boxes import iou
from worker.evaluation.datasets import Sample, read_dataset
from worker.heads import Competition, Example, LastLayer, examples, extended, last_layer, train_head
from worker.heads.outputs import decode
from worker.images import decode as decode_image
from worker.localizer import Localizer
from worker.networks import Network, load_network

KINDS = ("dog", "bird", "invertebrate", "container", "device", "conveyance", "clothing", "structure")
SIMILAR = (
    ("hunting dog", "working dog"),
    ("aquatic bird", "passerine"),
    ("container", "furnishing"),
    ("reptile", "fish"),
)
TEN = (
    "hunting dog", "working dog", "aquatic bird", "insect", "primate",
    "feline", "reptile", "wheeled vehicle", "musical instrument", "furniture",
)  # fmt: skip
COCO = {
    "people": {"person"},
    "animals": {"bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"},
    "vehicles": {"bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"},
    "food and table": {"dining table", "pizza", "cake", "bowl", "broccoli", "sandwich", "hot dog", "donut", "cup"},
    "rooms": {"bed", "couch", "toilet", "tv", "refrigerator", "oven", "sink", "chair", "laptop"},
}  # fmt: skip
SHOTS, TESTED = 20, 100


@dataclass(frozen=True)
class Photos:
    """A data set, the features of its photos, and which of them show what."""

    samples: list[Sample]
    features: list[Example]
    kinds: dict[str, set[int]]

    def sets(self, names: Sequence[str]) -> dict[str, list[int]]:
        """Photos of each kind that are of no other one."""
        found = {}
        for name in names:
            others = set().union(*(self.kinds[other] for other in names if other != name))
            found[name] = sorted(self.kinds[name] - others)
        return found

    def example(self, number: int, name: str) -> Example:
        """A photo whose boxes are all called `name`."""
        one = self.features[number]
        return Example(one.whole, one.crops, (name,) * len(one.crops))


def compute(network: Network, samples: list[Sample], file: Path) -> None:
    """Features of all photos, to an npz file."""
    kept = []
    with click.progressbar(samples, label="features", file=sys.stderr) as shown:
        for sample in shown:
            photo = decode_image(sample.path.read_bytes())
            kept += examples(network, [(photo, [("object", item.box) for item in sample.objects])])
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        file,
        whole=np.stack([one.whole for one in kept]),
        crops=np.concatenate([one.crops for one in kept]),
        count=np.array([len(one.crops) for one in kept]),
    )


def load(file: Path) -> list[Example]:
    with np.load(file) as stored:
        crops = np.split(stored["crops"], np.cumsum(stored["count"])[:-1])
        return [
            Example(whole, some, ("object",) * len(some))
            for whole, some in zip(stored["whole"], crops, strict=True)
        ]


def kinds_of(samples: Sequence[Sample]) -> dict[str, set[int]]:
    if any(item.class_index is None for sample in samples for item in sample.objects):
        main = [max(s.objects, key=lambda o: (o.box[2] - o.box[0]) * (o.box[3] - o.box[1])).label for s in samples]
        return {kind: {n for n, label in enumerate(main) if label in names} for kind, names in COCO.items()}
    table = taxonomy()
    above = [set(table.ancestors(table.wnids[sample.objects[0].class_index])) for sample in samples]  # type: ignore[index]
    found = {}
    for name in {*KINDS, *TEN, *itertools.chain(*SIMILAR)}:
        meanings = table.meanings[name.replace(" ", "")]
        found[name] = max(({n for n, some in enumerate(above) if wnid in some} for wnid in meanings), key=len)
    return found


def tasks(photos: Photos) -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Title, kinds and photos of each for learning."""
    if "people" in photos.kinds:
        yield from (("coco pair", pair, 10) for pair in itertools.combinations(COCO, 2))
        yield "coco all", tuple(COCO), 8
        return
    yield from (("pair", pair, SHOTS) for pair in itertools.combinations(KINDS, 2))
    yield from (("similar", pair, SHOTS) for pair in SIMILAR)
    yield "five", KINDS[:5], SHOTS
    yield "ten", TEN, 8


@dataclass
class Result:
    """One set of labels, learned from one draw of photos."""

    right: np.ndarray
    expected: float | None
    """Held-out accuracy within the photos for learning."""
    used: bool
    boxes: tuple[np.ndarray, np.ndarray] | None = None
    """IoU through the head, and class-agnostic."""


def one(
    photos: Photos, last: LastLayer, names: tuple[str, ...], shots: int, seed: int, draw: Draw | None
) -> Result | None:
    rng = np.random.default_rng(seed)
    learn, test = [], []
    for name, found in photos.sets(names).items():
        order = rng.permutation(found).tolist()
        cut = min(shots, len(order) * 6 // 10)  # of small kinds four tenths are left for the test
        learn += [(number, name) for number in order[:cut]]
        test += [(number, name) for number in order[cut:]]
    test = [test[place] for place in rng.permutation(len(test))[:TESTED]]
    # Whatever happens without a clear gain, the figure is of the labels: a head that is not used has none right.
    learned = train_head([photos.example(number, name) for number, name in learn], last, Competition({}))
    expected = learned.after.value if learned.after else None
    if learned.head is None:
        return Result(np.zeros(len(test), dtype=bool), expected, used=False)
    weights, bias = (part.numpy() for part in decode(learned.head, last.weight.shape[1]))
    outputs = np.stack([photos.features[number].whole for number, _ in test]) @ weights.T + bias
    right = np.array(
        [learned.head.labels[row.argmax()] == name for row, (_, name) in zip(outputs, test, strict=True)]
    )
    result = Result(right, expected, used=True)
    if draw is not None:
        result.boxes = draw.compare(learned.head, [number for number, _ in test[: draw.most]])
    return result


class Draw:
    """Boxes through heads and without, of the same photos."""

    def __init__(self, network: Network, samples: Sequence[Sample], most: int) -> None:
        self.base, self.samples, self.most = Localizer(network), samples, most
        self._known: dict[int, float] = {}

    def compare(self, head, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[no-untyped-def]
        """IoU (N,) with the nearest true box, twice."""
        fresh = [number for number in numbers if number not in self._known]
        self._known |= dict(zip(fresh, self._fits(self.base, fresh, None), strict=True))
        network = extended(self.base.network, head)
        first = len(self.base.network.classes)
        longer = Localizer(network, self.base.parameters, like=self.base)
        own = self._fits(longer, numbers, tuple(range(first, len(network.classes))))
        return np.array(own), np.array([self._known[number] for number in numbers])

    def _fits(self, localizer: Localizer, numbers: Sequence[int], classes: tuple[int, ...] | None) -> list[float]:
        found: list[float] = []
        for start in range(0, len(numbers), 8):
            some = [self.samples[number] for number in numbers[start : start + 8]]
            shown = [decode_image(sample.path.read_bytes()) for sample in some]
            for sample, photo, drawn in zip(some, shown, localizer.localize(shown, classes=classes), strict=True):
                size = np.array([photo.width, photo.height] * 2)
                truths = np.array([item.box for item in sample.objects])
                found.append(float(iou(np.array(drawn[0].box) / size, truths).max()) if drawn else 0.0)
        return found


def interval(right: np.ndarray) -> str:
    found = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return f"{right.mean():.3f} [{found.low:.3f}, {found.high:.3f}]"


def compare(drawn: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Print how boxes through heads do beside class-agnostic ones of the same photos, with a 95 % interval."""
    if not drawn:
        return
    own, plain = (np.concatenate([pair[side] for pair in drawn]) for side in (0, 1))
    picks = np.random.default_rng(0).integers(0, len(own), (2000, len(own)))
    for label, a, b in (("corloc", own >= 0.5, plain >= 0.5), ("mean IoU", own, plain)):
        low, high = np.quantile((a.astype(float) - b)[picks].mean(1), [0.025, 0.975])
        click.echo(
            f"  {label}: {a.mean():.4f} through the head, {b.mean():.4f} class-agnostic; "
            f"difference {a.mean() - b.mean():+.4f} [{low:+.4f}, {high:+.4f}], {len(own)} photos"
        )


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path, exists=True))
@click.option("--features", required=True, type=click.Path(path_type=Path), help="Folder for what the network saw.")
@click.option("--network", "name", default="efficientnet_lite0")
@click.option("--weights", type=click.Path(path_type=Path, exists=True), help="Local state dict.")
@click.option("--draws", default=3, help="Draws of photos for each set of labels.")
@click.option("--photos", "most", type=int, help="Only the first photos of the data set.")
@click.option("--every", default=1, help="Only every n-th set of labels.")
@click.option("--boxes", default=0, help="Photos of each pair, at most, whose boxes are compared; 0 for none.")
def command(
    dataset: Path,
    features: Path,
    name: str,
    weights: Path | None,
    draws: int,
    most: int | None,
    every: int,
    boxes: int,
) -> None:
    """Learn labels on the photos of DATASET and say what they are worth."""
    network = load_network(name, weights=weights)
    samples = read_dataset(dataset)[:most]
    file = features / f"{name}-{dataset.name}-{len(samples)}.npz"
    if not file.is_file():
        compute(network, samples, file)
    photos, last = Photos(samples, load(file), kinds_of(samples)), last_layer(network)
    drawing = Draw(network, samples, boxes) if boxes else None
    groups: dict[str, list[Result]] = {}
    for title, names, shots in itertools.islice(tasks(photos), 0, None, every):
        sizes = {kind: len(found) for kind, found in photos.sets(names).items()}
        if min(sizes.values()) < 9:
            continue
        pair = drawing if title.endswith("pair") or title == "similar" else None
        found = [one(photos, last, names, shots, seed, pair if seed == 0 else None) for seed in range(draws)]
        groups.setdefault(title, []).extend(found)
        right = np.concatenate([result.right for result in found])
        hopes = [result.expected for result in found if result.expected is not None]
        click.echo(
            f"{title:10} {' / '.join(names)[:60]:60} {interval(right)} of {len(right)}; "
            f"cross-validated {np.mean(hopes):.3f}; used {sum(result.used for result in found)} of {draws}"
        )
        compare([result.boxes for result in found if result.boxes is not None])
    for title, results in groups.items():
        right = np.concatenate([result.right for result in results])
        used = np.concatenate([r.right for r in results if r.used] or [np.zeros(1, dtype=bool)])
        means = [result.right.mean() for result in results]
        click.echo(
            f"\n{title}: {interval(right)} over {len(results)} heads, of those in use {interval(used)}; "
            f"worst tenth {np.quantile(means, 0.1):.3f}; "
            f"{np.mean([mean >= 0.85 for mean in means]):.0%} of them at 0.85 or above"
        )
        compare([result.boxes for result in results if result.boxes is not None])


if __name__ == "__main__":
    command()
