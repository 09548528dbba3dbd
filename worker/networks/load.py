"""From a network's name to a classifier that is ready to use."""

from __future__ import annotations

import difflib
import os
from collections import Counter
from pathlib import Path

import torch

from worker.errors import NetworkError, UnknownNetworkError, WeightsError
from worker.networks.catalogue import NETWORKS
from worker.networks.entry import Network, NetworkEntry
from worker.networks.weights import fill, read_state


def load_network(
    name: str = "vgg16",
    *,
    weights: Path | None = None,
    classes: Path | None = None,
    cache_dir: Path | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Network:
    """A network of the catalogue with its published weights, or with a checkpoint of the user's.

    weights: local state dict (safetensors, or .pth without code); otherwise the published weights, which are
    downloaded into `cache_dir` on first use (`progress` shows a bar on stderr).
    classes: text file with one class name per line, in the order of the network's outputs.
    device: "cpu", "cuda", "cuda:1", … or "auto" (a GPU where there is one).
    Raises UnknownNetworkError, WeightsError (missing, damaged, of another network, another number of classes)
    and NetworkError (device, class file).
    """
    entry = find_entry(name)
    target = resolve_device(device)
    if weights is None:
        path = entry.source.fetch(cache_dir or default_cache_dir(), progress=progress)
    else:
        path = Path(weights)
    names = entry.classes() if classes is None else read_classes(Path(classes))
    state, sha256 = read_state(path)
    if weights is None:
        entry.source.check(path, sha256)
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced at once
        module = entry.build(len(names))
    try:
        fill(module, entry.convert(state), path, len(names))
    except WeightsError as error:
        raise WeightsError(f"{name}: {error}") from None
    module = module.eval().requires_grad_(False).to(target)
    return Network(name, module, entry.preprocessing, names, sha256, entry)


def find_entry(name: str) -> NetworkEntry:
    """The catalogue's entry. Raises UnknownNetworkError with the names that there are."""
    try:
        return NETWORKS[name]
    except KeyError:
        near = difflib.get_close_matches(name, NETWORKS, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UnknownNetworkError(f"no network {name!r}{hint}: there are {', '.join(NETWORKS)}") from None


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names of a UTF-8 text file, one a line; blank lines at the end do not count.

    Raises NetworkError where the file cannot be read, a name is empty or occurs twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NetworkError(f"class names cannot be read from {path}: {error}") from None
    names = tuple(line.strip() for line in lines)
    if not names or not all(names):
        line = names.index("") + 1 if names else 1
        raise NetworkError(f"{path} needs one class name on each line: line {line} is empty")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise NetworkError(f"{path} names a class twice: {', '.join(twice[:3])}")
    return names


def resolve_device(device: torch.device | str) -> torch.device:
    """ "auto" → a CUDA device where there is one, else the CPU. Raises NetworkError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise NetworkError(f"device {str(device)!r} cannot be used ({reason}): try cpu or auto") from None
    return target


def default_cache_dir() -> Path:
    """Where downloads go unless told otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "boxlift"
