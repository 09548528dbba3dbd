"""State dicts from files, and into modules; every mismatch is named."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from worker.errors import WeightsError
from worker.networks.entry import State

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "ema", "module")
"""Keys under which training scripts keep the state dict in a checkpoint."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.")
"""What DataParallel, torch.compile and trainers put before every key."""
SHOWN = 3


def read_state(path: Path) -> tuple[State, str]:
    """A file's state dict (float32 on the CPU) and the hex SHA-256 of the file.

    Safetensors, or what `torch.save` wrote, told apart by content; the latter is read with `weights_only`,
    so that no code of the file runs. Wrappers and prefixes that training scripts add are taken off. Raises
    WeightsError that names the file.
    """
    with ThreadPoolExecutor(1) as pool:  # hashing 500 MB takes as long as reading them: both at once
        digest = pool.submit(sha256_of, path)
        state = _without_prefix(_unwrap(_load(path), path))
        return {key: _as_float32(value) for key, value in state.items()}, digest.result()


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fill(module: nn.Module, state: State, path: Path, classes: int) -> None:
    """Put `state` into `module`, which may be on the meta device: its tensors become the module's own.

    Raises WeightsError that says which keys or shapes differ, or that the number of classes does.
    """
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in wanted]
    if missing or extra:
        parts = [
            f"{len(keys)} {kind} ({_some(keys)})"
            for kind, keys in (("missing", missing), ("unknown", extra))
            if keys
        ]
        raise WeightsError(f"{path} belongs to another network: of its tensors {' and '.join(parts)}")
    shapes = {key: (tuple(state[key].shape), tuple(value.shape)) for key, value in wanted.items() if key in state}
    wrong = {key: pair for key, pair in shapes.items() if pair[0] != pair[1]}
    if wrong:
        found = {have[0] for have, want in wrong.values() if have and have[1:] == want[1:] and want[0] == classes}
        only_classes = all(have and have[1:] == want[1:] and want[0] == classes for have, want in wrong.values())
        if only_classes and len(found) == 1:
            raise WeightsError(
                f"{path} knows {found.pop()} classes, but there are {classes} class names: "
                "give a file with one name for each, in order, with --classes FILE"
            )
        details = _some([f"{key} is {have} instead of {want}" for key, (have, want) in wrong.items()])
        raise WeightsError(f"{path} belongs to another network: {details}")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.sum().isfinite()]
    if broken:
        raise WeightsError(f"{path} holds infinite or undefined numbers ({_some(broken)}): it is damaged")
    complete = {key: state.get(key, torch.zeros(value.shape, dtype=value.dtype)) for key, value in wanted.items()}
    module.load_state_dict(complete, strict=True, assign=True)


def _load(path: Path) -> object:
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if not head:
            raise WeightsError(f"{path} is empty")
        if head[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or cut off: {error}") from None
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{path} is not a plain state dict: it holds Python objects that could run code, or is damaged. "
            "Save module.state_dict() with torch.save or safetensors"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is damaged or not a state dict: {str(error).splitlines()[0]}") from None


def _unwrap(value: object, path: Path) -> State:
    """The mapping of names to tensors inside a checkpoint."""
    while isinstance(value, Mapping):
        if value and all(isinstance(item, Tensor) for item in value.values()):
            return {str(key): item for key, item in value.items()}
        inner = next((value[key] for key in WRAPPERS if isinstance(value.get(key), Mapping)), None)
        if inner is None:
            break
        value = inner
    raise WeightsError(
        f"{path} holds no state dict: names with tensors are expected, plain or under one of {', '.join(WRAPPERS)}"
    )


def _without_prefix(state: State) -> State:
    """Take off prefixes that all keys share."""
    changed = True
    while changed:
        changed = False
        for prefix in PREFIXES:
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
                changed = True
    return state


def _as_float32(value: Tensor) -> Tensor:
    return value.detach().float() if value.is_floating_point() else value.detach()


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f", and {rest} more" if rest > 0 else "")
