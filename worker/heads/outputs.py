"""The last linear layer of a network: what it sees, and what it answers for further classes."""

from __future__ import annotations

import base64
import binascii
import copy
import dataclasses
import hashlib
import json

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from worker.attribution.tracing import trace
from worker.contract import Head
from worker.errors import NetworkError
from worker.heads.fitting import LastLayer
from worker.networks import Network
from worker.rules.above_best import AboveBest


def last_linear(network: Network) -> str:
    """Module path of the linear layer that yields the logits.

    Raises NetworkError where there is none, as in SqueezeNet, whose classes come from a convolution, a ReLU and a
    mean: no linear function of one vector. UnsupportedLayerError where the network cannot be traced.
    """
    program = trace(network.module, network.preprocessing.size)
    makers = [step for step in program.steps if step.output == program.output]
    name = makers[0].name if makers else ""
    found = dict(network.module.named_modules()).get(name)
    if not isinstance(found, nn.Linear) or [step.name for step in program.steps].count(name) > 1:
        raise NetworkError(
            f"{network.name} has no linear layer at its end, so it cannot learn labels of a project's own: "
            "use another network"
        )
    return name


def linear_at(network: Network, path: str) -> nn.Linear:
    """The layer of `last_linear`."""
    layer = network.module.get_submodule(path)
    assert isinstance(layer, nn.Linear)  # noqa: S101 - narrows the type
    return layer


def with_module(root: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """The module with another one at `path`. Everything else is shared; the module itself is not changed."""
    copied = copy.copy(root)
    copied._modules = dict(root._modules)
    first, _, rest = path.partition(".")
    inner = root.get_submodule(first)
    copied._modules[first] = with_module(inner, rest, part) if rest else part
    return copied


def encode(labels: tuple[str, ...], weights: npt.NDArray[np.floating], bias: npt.NDArray[np.floating]) -> Head:
    """A head from weights (K, D) and bias (K,)."""
    data = np.ascontiguousarray(weights, dtype="<f4").tobytes()
    rounded = np.asarray(bias, dtype=np.float32)
    return Head(labels, base64.b64encode(data).decode("ascii"), tuple(float(value) for value in rounded))


def decode(head: Head, inputs: int) -> tuple[Tensor, Tensor]:
    """Weights (K, `inputs`) and bias (K,), float32. Raises NetworkError for damaged ones or another network's."""
    try:
        values = np.frombuffer(base64.b64decode(head.weights, validate=True), dtype="<f4")
    except (binascii.Error, ValueError):
        values = np.empty(0, dtype=np.float32)
    count = len(head.labels)
    if not count or values.size != count * inputs or len(head.bias) != count or len(set(head.labels)) != count:
        raise NetworkError(
            f"the project's own labels ({', '.join(head.labels)}) were not learned with this network, which has "
            f"{inputs} features: tune the project again"
        )
    weights = torch.from_numpy(values.astype(np.float32)).reshape(count, inputs)
    bias = torch.tensor(head.bias, dtype=torch.float32)
    if not (weights.isfinite().all() and bias.isfinite().all()):
        raise NetworkError(
            f"what was learned of {', '.join(head.labels)} holds undefined numbers: tune the project again"
        )
    return weights, bias


def extended(network: Network, head: Head) -> Network:
    """The network with the head's labels as further classes, behind its own; `own` says how many.

    The logit of a further class is the best of the network's own in the same photo plus the head's linear function
    of the features (see `AboveBest`). All layers but the last are shared with the network, which is not changed.
    Raises NetworkError where the head is another network's, or the network already has labels of a project's own.
    """
    if network.own:
        raise NetworkError(f"{network.name} has labels of a project's own already: extend it as it was loaded")
    path = last_linear(network)
    before = linear_at(network, path)
    place, kind = before.weight.device, before.weight.dtype
    weights, bias = (part.to(place, kind) for part in decode(head, before.in_features))
    old = before.weight.new_zeros(before.out_features) if before.bias is None else before.bias.detach()
    last = nn.Linear(before.in_features, before.out_features + len(bias), device="meta")
    last.weight = nn.Parameter(torch.cat([before.weight.detach(), weights]), requires_grad=False)
    last.bias = nn.Parameter(torch.cat([old, bias]), requires_grad=False)
    outputs = nn.Sequential(last, AboveBest(before.out_features)).train(before.training)
    identity = json.dumps([network.weights_digest, head.to_dict()], sort_keys=True, ensure_ascii=False)
    return dataclasses.replace(
        network,
        module=with_module(network.module, path, outputs),
        classes=network.classes + head.labels,
        weights_digest=hashlib.sha256(identity.encode()).hexdigest(),
        own=len(head.labels),
    )


def last_layer(network: Network) -> LastLayer:
    """The numbers of a network's last linear layer. Raises as `last_linear` does."""
    layer = linear_at(network, last_linear(network))
    bias = np.zeros(layer.out_features) if layer.bias is None else layer.bias.double().cpu().numpy()
    return LastLayer(layer.weight.double().cpu().numpy(), bias)
