"""What a network must not do where captum attributes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from worker.errors import UnsupportedLayerError
from worker.graphs import operation


def check_images_apart(model: fx.GraphModule, images: Tensor) -> None:
    """Raises UnsupportedLayerError that names a layer which mixes the images of a batch.

    captum computes image and reference as one batch, so their activations must lie apart, along dimension 0: those
    of two images in the other order must be the same in the other order. images: (2, 3, H, W), different ones.
    """
    there, back = _Watched(model), _Watched(model)
    with torch.no_grad():
        there.run(images)
        back.run(images.flip(0))
    for node, values in there.seen.items():
        for one, other in zip(values, back.seen[node], strict=True):
            apart = one.dim() > 0 and len(one) == 2
            if not apart or not torch.allclose(one.flip(0), other, rtol=1e-3, atol=1e-3 * float(one.abs().max())):
                raise UnsupportedLayerError(
                    f"layer {node.name!r} ({operation(node)}) mixes the images of a batch, which captum needs "
                    "apart: use a network of supported layers"
                )


class _Watched(fx.Interpreter):
    """Keeps the tensors that each operation on activations answers."""

    def __init__(self, model: fx.GraphModule) -> None:
        super().__init__(model)
        self.seen: dict[fx.Node, list[Tensor]] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op in ("call_module", "call_function", "call_method"):
            values = value if isinstance(value, tuple | list) else [value]
            tensors = [item for item in values if isinstance(item, Tensor)]
            if tensors:
                self.seen[n] = tensors
        return value
