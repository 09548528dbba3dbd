"""A copy of a network in which captum's DeepLIFT and guided backpropagation are right.

captum 0.9 hangs its rules on modules, and goes wrong where

- a nonlinear module reads a tensor that another module also reads or that a ReLU just wrote (every pool of VGG):
  its rule then replaces the whole gradient of that tensor. Here each has an input of its own;
- a module is called twice, works in place, or is a function. Here each call is a module of its own, out of place;
- pooling windows overlap: `max_unpool` assigns where it must add. Here the windows are laid out side by side first;
- the layer is a ReLU6, which captum does not know: relu(x) − relu(x − 6) has the same secant for DeepLIFT, and a
  ReLU whose forward is ReLU6 has the right rule for guided backpropagation.

The copy shares the weights' memory with the original, which is read only.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from worker.errors import NetworkError, UnsupportedLayerError
from worker.graphs import LayerTracer, operation
from worker.rules.table import pair

Purpose = Literal["deeplift", "guided"]

TRANSPARENT = (
    nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool2d,
    nn.AdaptiveAvgPool2d, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity,
    nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.ConstantPad2d, nn.PixelShuffle, nn.ChannelShuffle,
    nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d,
)  # fmt: skip
"""Modules that are linear (affine) in their input in eval mode: gradients are multipliers."""

NONLINEAR = (nn.ReLU, nn.ReLU6, nn.ELU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.MaxPool2d)
"""Modules that get captum's rule, or are rewritten so that they do."""

ADDITIONS = (operator.add, torch.add, "add", operator.sub, torch.sub, "sub")
PRODUCTS = (operator.mul, torch.mul, "mul")
"""Transparent where all but one factor is a number."""
QUOTIENTS = (operator.truediv, torch.div, "div")
"""Transparent where the divisor is a number."""
IN_PLACE: Mapping[Any, Callable[..., Any]] = {
    operator.iadd: torch.add,
    "add_": torch.add,
    operator.isub: torch.sub,
    "sub_": torch.sub,
    operator.imul: torch.mul,
    "mul_": torch.mul,
    operator.itruediv: torch.div,
    "div_": torch.div,
}
"""Functions that overwrite their first argument → those that do not."""
SHAPING = (
    torch.cat, torch.concat, torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze,
    torch.unsqueeze, torch.chunk, torch.split, torch.mean, torch.sum, operator.getitem, F.avg_pool2d,
    F.adaptive_avg_pool2d, F.pad, F.interpolate, "flatten", "view", "reshape", "permute", "transpose", "squeeze",
    "unsqueeze", "contiguous", "chunk", "split", "mean", "sum",
)  # fmt: skip
DROPOUTS = (F.dropout, F.dropout1d, F.dropout2d)
PLAIN = ("size", "dim", getattr)
"""Calls that answer shapes, not activations."""
VIEWS = (
    torch.flatten, torch.reshape, torch.permute, torch.transpose, torch.squeeze, torch.unsqueeze, torch.chunk,
    torch.split, operator.getitem, "flatten", "view", "reshape", "permute", "transpose", "squeeze", "unsqueeze",
    "contiguous", "chunk", "split", nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Identity,
)  # fmt: skip
"""Functions, methods and modules whose result may lie in their argument's memory."""


def _max_pool(
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> nn.Module:
    if return_indices:
        raise TypeError("indices are no activations")
    return nn.MaxPool2d(kernel_size, stride or kernel_size, padding, dilation, ceil_mode=ceil_mode)


CALLS: Mapping[Any, Callable[..., nn.Module]] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, "relu", "relu_"), nn.ReLU),
    F.relu6: nn.ReLU6,
    F.elu: nn.ELU,
    F.leaky_relu: nn.LeakyReLU,
    **dict.fromkeys((F.sigmoid, torch.sigmoid, "sigmoid"), nn.Sigmoid),
    **dict.fromkeys((F.tanh, torch.tanh, "tanh"), nn.Tanh),
    F.softplus: nn.Softplus,
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), _max_pool),
}
"""Functions and methods → the module that computes the same, made of the remaining arguments."""


class Own(nn.Module):
    """Passes its input on as another tensor, so that hooks on it concern one reader alone."""

    def forward(self, x: Tensor) -> Tensor:
        """Same values, new tensor."""
        return x.view_as(x)


class TwoReLUs(nn.Module):
    """ReLU6 for DeepLIFT: relu(x) − relu(x − 6); secants add up."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.above = nn.ReLU(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """min(max(x, 0), 6)."""
        difference: Tensor = self.below(x.view_as(x)) - self.above(x - 6)
        return difference


class GuidedReLU6(nn.ReLU):
    """ReLU6 for guided backpropagation: captum takes any ReLU's gradient and drops its negative part."""

    def forward(self, input: Tensor) -> Tensor:
        """min(max(x, 0), 6)."""
        return F.relu6(input)


class SeparateWindows(nn.Module):
    """Max pooling with windows copied side by side, so that none overlap; gradients of the copies add up."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self.kernel, self.padding, self.dilation = (
            pair(value) for value in (pool.kernel_size, pool.padding, pool.dilation)
        )
        self.stride = pair(pool.stride or pool.kernel_size)
        self.ceil_mode = pool.ceil_mode
        self.pool = nn.MaxPool2d((self.kernel[0] * self.kernel[1], 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, C, h, w) as the original pool."""
        count, channels = x.shape[:2]
        size = F.max_pool2d(
            x[:1, :1].detach(), self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        ).shape[-2:]
        frame: list[int] = []  # what F.pad wants: the last dimension first; less than zero cuts off
        for i in (1, 0):
            reach = (size[i] - 1) * self.stride[i] + self.dilation[i] * (self.kernel[i] - 1) + 1
            frame += [self.padding[i], reach - x.shape[2 + i] - self.padding[i]]
        lowest = torch.finfo(x.dtype).min / 4  # not -inf: its difference to itself is undefined
        windows = F.unfold(F.pad(x, frame, value=lowest), self.kernel, self.dilation, stride=self.stride)
        pooled: Tensor = self.pool(windows.view(count, channels, -1, size[0] * size[1]))
        return pooled.view(count, channels, *size)


def rewritten(
    module: nn.Module,
    purpose: Purpose,
    *,
    device: torch.device,
    dtype: torch.dtype,
    layers: Sequence[str] = (),
) -> tuple[fx.GraphModule, dict[str, nn.Module]]:
    """The copy, and for each module path in `layers` the module of the copy that returns its output.

    Raises UnsupportedLayerError that names a layer whose rule captum lacks, or that
    stands for a module which cannot be traced; NetworkError for an inner layer that the network lacks, or that
    does not lead to the logits.
    """
    root = _twin(module, device, dtype)
    tracer = LayerTracer(TRANSPARENT + NONLINEAR)
    graph = tracer.graph_of(root)
    unknown = [name for name in layers if name not in tracer.returned]
    if unknown:
        raise NetworkError(f"no layer {unknown[0]!r} in the network: its layers are {', '.join(tracer.returned)}")
    modules = dict(root.named_modules(remove_duplicate=False))
    model = fx.GraphModule(root, graph, type(module).__name__)
    replaced = _Writer(model, modules, purpose, type(module).__name__).write()
    leading = _leading(model.graph)
    taps = {}
    for number, name in enumerate(layers):
        node = tracer.returned[name]
        while node in replaced:
            node = replaced[node]
        if node not in leading:
            raise NetworkError(f"layer {name!r} does not lead to the logits: it has no contributions to them")
        taps[name] = _tap(model, node, f"inner_{number}")
    model.graph.lint()
    model.recompile()
    model.delete_all_unused_submodules()
    return model.eval(), taps


def _leading(graph: fx.Graph) -> set[fx.Node]:
    """Everything that the graph's output comes from."""
    nodes = list(graph.nodes)
    leading = {node for node in nodes if node.op == "output"}
    for node in reversed(nodes):
        if node in leading:
            leading.update(node.all_input_nodes)
    return leading


class _Writer:
    """Goes through a graph once and makes every layer captum's."""

    def __init__(self, model: fx.GraphModule, modules: dict[str, nn.Module], purpose: Purpose, name: str) -> None:
        self.model = model
        self.modules = modules
        self.purpose = purpose
        self.name = name
        self.plain: set[fx.Node] = set()
        self.memory: dict[fx.Node, fx.Node] = {}  # what may lie in another's memory → the first one there
        self.replaced: dict[fx.Node, fx.Node] = {}
        self.count = 0

    def write(self) -> dict[fx.Node, fx.Node]:
        """Nodes that are no more → those that stand for them."""
        for node in list(self.model.graph.nodes):
            if self._is_view(node):
                source = node.all_input_nodes[0]
                self.memory[node] = self.memory.get(source, source)
            if node.op == "call_module":
                self._module(node, self.modules[str(node.target)])
            elif node.op in ("call_function", "call_method"):
                self._call(node)
            elif node.op == "get_attr":
                self.plain.add(node)
        return self.replaced

    def _is_view(self, node: fx.Node) -> bool:
        kind = type(self.modules[str(node.target)]) if node.op == "call_module" else node.target
        return kind in VIEWS and bool(node.all_input_nodes)

    def _module(self, node: fx.Node, module: nn.Module) -> None:
        if isinstance(module, nn.MaxPool2d) and module.return_indices:
            raise self._unsupported(str(node.target), "MaxPool2d that answers indices")
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.running_mean is None:
            raise self._unsupported(str(node.target), f"{type(module).__name__} without running statistics")
        if type(module) in NONLINEAR:
            self._nonlinear(node, module)
        elif type(module) not in TRANSPARENT:
            raise self._unsupported(str(node.target), type(module).__name__)

    def _call(self, node: fx.Node) -> None:
        target = node.target
        name = operation(node)
        if all(argument in self.plain for argument in node.all_input_nodes) or target in PLAIN:
            self.plain.add(node)
        elif target in CALLS:
            if len(node.all_input_nodes) > 1:
                raise self._unsupported(name, "arguments that are computed")
            options = {key: value for key, value in node.kwargs.items() if key != "inplace"}
            options.pop("input", None)
            try:
                module = CALLS[target](*node.args[1:], **options)
            except TypeError as error:
                raise self._unsupported(name, str(error)) from None
            self._nonlinear(node, module, inplace=bool(node.kwargs.get("inplace")) or name.endswith("_"))
        elif target in DROPOUTS:
            self._stand_in(node, node.all_input_nodes[0])
        elif target in IN_PLACE:
            with self.model.graph.inserting_before(node):
                new = self.model.graph.call_function(IN_PLACE[target], node.args, node.kwargs)
            self._linear(new, name)
            self._stand_in(node, new, alias=True)
        elif target in ADDITIONS + PRODUCTS + QUOTIENTS:
            self._linear(node, name)
        elif target not in SHAPING:
            raise self._unsupported(name, "a function")

    def _linear(self, node: fx.Node, name: str) -> None:
        """Refuses arithmetic that is not linear in the activations together."""
        if node.target in ADDITIONS:
            return
        if sum(argument not in self.plain for argument in node.all_input_nodes) > 1:
            raise self._unsupported(name, "a product of activations")
        if node.target in QUOTIENTS:
            divisor = node.args[1] if len(node.args) > 1 else node.kwargs.get("other")
            if (isinstance(divisor, fx.Node) and divisor not in self.plain) or node.kwargs.get("rounding_mode"):
                raise self._unsupported(name, "a division by activations, or a rounded one")

    def _nonlinear(self, node: fx.Node, module: nn.Module, *, inplace: bool = False) -> None:
        inplace = inplace or bool(getattr(module, "inplace", False))
        self.count += 1
        own, name = f"own_{self.count}", f"nonlinear_{self.count}"
        self.model.add_submodule(own, Own())
        self.model.add_submodule(name, self._captums(module))
        source = node.all_input_nodes[0]
        with self.model.graph.inserting_before(node):
            private = self.model.graph.call_module(own, (source,))
            self._stand_in(node, self.model.graph.call_module(name, (private,)), alias=inplace)

    def _captums(self, module: nn.Module) -> nn.Module:
        """A new module with the same outputs that captum treats rightly."""
        if isinstance(module, nn.ReLU6):
            return TwoReLUs() if self.purpose == "deeplift" else GuidedReLU6()
        fresh = copy.deepcopy(module)  # not copy.copy: that shares the hooks
        if hasattr(fresh, "inplace"):
            setattr(fresh, "inplace", False)  # noqa: B010 - not every module declares it
        if self.purpose == "deeplift" and isinstance(module, nn.MaxPool2d) and not _is_tiling(module):
            return SeparateWindows(module)
        return fresh

    def _stand_in(self, node: fx.Node, new: fx.Node, *, alias: bool = False) -> None:
        """Replace `node`; with `alias`, later readers of what it overwrote read its result, as they would have."""
        if alias:
            after = False
            source = node.all_input_nodes[0]
            place = self.memory.get(source, source)
            sharing = {place} | {view for view, first in self.memory.items() if first is place}
            for reader in list(self.model.graph.nodes):
                after = after or reader is node
                if not after or reader is node:
                    continue
                if source in reader.all_input_nodes:
                    reader.replace_input_with(source, new)
                if sharing.intersection(reader.all_input_nodes):
                    raise UnsupportedLayerError(
                        f"layer {node.name!r} ({operation(node)}) of {self.name} works in place on memory that "
                        f"{reader.name!r} reads under another name afterwards: have it work out of place"
                    )
        node.replace_all_uses_with(new)
        self.model.graph.erase_node(node)
        self.replaced[node] = new

    def _unsupported(self, name: str, kind: str) -> UnsupportedLayerError:
        return UnsupportedLayerError(
            f"layer {name!r} ({kind}) of {self.name} has no DeepLIFT rule in captum: "
            "use a network of supported layers"
        )


def _tap(model: fx.GraphModule, node: fx.Node, name: str) -> nn.Module:
    """A module right behind `node` that every reader of it now reads."""
    tap = Own()
    model.add_submodule(name, tap)
    readers = list(node.users)
    with model.graph.inserting_after(node):
        new = model.graph.call_module(name, (node,))
    for reader in readers:
        reader.replace_input_with(node, new)
    return tap


def _twin(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """A copy in eval mode without hooks; its tensors share memory with the original's where they can."""

    def placed(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, dtype if tensor.is_floating_point() else None)

    memo: dict[int, Any] = {id(p): nn.Parameter(placed(p), requires_grad=False) for p in module.parameters()}
    memo |= {id(b): placed(b) for b in module.buffers()}
    twin = copy.deepcopy(module, memo).eval()
    for part in twin.modules():
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            getattr(part, hooks).clear()
    return twin


def _is_tiling(pool: nn.MaxPool2d) -> bool:
    """Whether every input lies in one window at most, and none is padding."""
    kernel, stride = pair(pool.kernel_size), pair(pool.stride or pool.kernel_size)
    whole = pair(pool.padding) == (0, 0) and pair(pool.dilation) == (1, 1) and not pool.ceil_mode
    return whole and all(s >= k for s, k in zip(stride, kernel, strict=True))
