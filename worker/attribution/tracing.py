"""From a network to a flat list of steps, without touching the network.

The module is traced symbolically (torch.fx): its forward code runs once with stand-ins for the activations. Hooks
are not called, flags are not changed, nothing is stored. In-place operations become ordinary ones with the same
result.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Size, Tensor, fx, nn

from worker.errors import UnsupportedLayerError
from worker.graphs import LayerTracer, operation
from worker.rules import Layer, Nonlinear, Transparent, bind_call, bind_module
from worker.rules.structure import Concatenation, Identity, Reshape
from worker.rules.table import MODULES


@dataclass(frozen=True)
class Step:
    """One layer in its place. Values are numbered: 0 is the image, `output` counts up."""

    name: str
    """Module path, or the function and where it is called."""
    layer: Nonlinear | Transparent
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class Program:
    """A network as steps in the order of their computation."""

    steps: tuple[Step, ...]
    output: int
    """The value that holds the logits."""
    names: Mapping[str, int]
    """Module path (of any depth) → the value that the module returned last."""
    shapes: Mapping[int, Size]
    """Of each value, for a batch of two images."""


def trace(module: nn.Module, input_size: tuple[int, int]) -> Program:
    """The steps of `module` for images of `input_size` (height, width).

    Dropout and batch normalisation are those of inference, whatever the module's training flag says.

    Raises:
        UnsupportedLayerError: a layer has no rule (by path and type), or the forward code cannot be traced.
    """
    tracer = LayerTracer(MODULES)
    with _untouched(module):
        graph = tracer.graph_of(module)
        modules = dict(module.named_modules(remove_duplicate=False))
        return _Reader(module, modules, input_size).read(graph, tracer.returned)


@contextmanager
def _untouched(module: nn.Module) -> Iterator[None]:
    """Takes back what is set on modules inside: torch.fx sets constants there, forward code whatever it likes."""
    held = [(part, dict(vars(part)), dict(part._buffers)) for part in module.modules()]
    try:
        yield
    finally:
        for part, attributes, buffers in held:
            for now, before in ((vars(part), attributes), (part._buffers, buffers)):
                if now.keys() != before.keys() or any(now[key] is not before[key] for key in before):
                    now.clear()
                    now.update(before)


class _Reader:
    """Turns the nodes of a graph into steps, following shapes on the way."""

    def __init__(self, module: nn.Module, modules: dict[str, nn.Module], input_size: tuple[int, int]) -> None:
        self.module = module
        self.modules = modules
        self.input_size = input_size
        weights = (tensor for tensor in module.state_dict().values() if tensor.is_floating_point())
        self.zero = next(weights, torch.zeros(())).new_zeros(())
        self.steps: list[Step] = []
        self.shapes: dict[int, Size] = {}
        self.known: dict[fx.Node, Any] = {}  # what a node evaluates to: a blank, or a plain value
        self.numbers: dict[fx.Node, int] = {}  # of the activations
        self.memory: dict[int, int] = {}  # of the activations: the first one that lies in the same memory

    def read(self, graph: fx.Graph, returned: Mapping[str, fx.Node]) -> Program:
        output: int | None = None
        for node in graph.nodes:
            match node.op:
                case "placeholder":
                    self._placeholder(node)
                case "call_module":
                    module = self.modules[str(node.target)]
                    self._step(node, str(node.target), bind_module(module), _kind(module))
                    if getattr(module, "inplace", False):
                        self._alias(node, str(node.target))
                case "call_function" | "call_method":
                    self._call(node)
                case "get_attr":
                    self.known[node] = operator.attrgetter(str(node.target))(self.module)
                case "output":
                    output = self._output(node)
        if output is None:
            raise UnsupportedLayerError(
                f"{type(self.module).__name__} returns no logits of shape (images, classes)"
            )
        names = {name: self.numbers[node] for name, node in returned.items() if node in self.numbers}
        return Program(tuple(self.steps), output, names, self.shapes)

    def _placeholder(self, node: fx.Node) -> None:
        if self.numbers:
            self.known[node] = node.args[0] if node.args else None
            return
        self._note(node, Size((2, 3, *self.input_size)))

    def _note(self, node: fx.Node, shape: Size) -> None:
        self.numbers[node] = len(self.shapes)
        self.shapes[self.numbers[node]] = shape
        self.known[node] = self._blank(shape)

    def _blank(self, shape: Size) -> Tensor:
        """Zeros that take no memory. Not on the meta device: its first use takes as long as importing torch."""
        return self.zero.expand(shape)

    def _evaluate(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda node: self.known[node])

    def _call(self, node: fx.Node) -> None:
        args, kwargs = self._evaluate(node.args), self._evaluate(node.kwargs)
        target = node.target
        if _is_plain(target) or (target in ARITHMETIC and not _holds_tensor(args)):
            value = (
                getattr(args[0], target)(*args[1:], **kwargs)
                if isinstance(target, str)
                else target(*args, **kwargs)
            )
            if not isinstance(value, Tensor):
                self.known[node] = value
                return
        name = operation(node)
        place = self._place(node, name)
        self._step(node, place, bind_call(target, args, kwargs), name)
        if kwargs.get("inplace") or name.endswith("_") or target is operator.iadd:
            self._alias(node, place)

    def _place(self, node: fx.Node, name: str) -> str:
        owner = ""
        for path, _ in (node.meta.get("nn_module_stack") or {}).values():
            owner = path or owner
        return f"{owner}.{name}" if owner else name

    def _step(self, node: fx.Node, name: str, layer: Layer | None, kind: str) -> None:
        inputs = self._inputs(node)
        constants = [n for n in node.all_input_nodes if n not in self.numbers and _holds_tensor(self.known[n])]
        if not isinstance(layer, Nonlinear | Transparent) or not inputs or constants:
            raise UnsupportedLayerError(
                f"layer {name!r} ({kind}) of {type(self.module).__name__} has no DeepLIFT rule: "
                "use a network of supported layers"
            )
        if isinstance(layer, Identity):
            self.numbers[node], self.known[node] = inputs[0], self.known[node.all_input_nodes[0]]
            return
        blanks = [self._blank(self.shapes[i]) for i in inputs]
        shapes = [tuple(blank.shape) for blank in blanks]
        if not isinstance(layer, Concatenation) and len(set(shapes)) > 1:
            raise UnsupportedLayerError(
                f"layer {name!r} ({kind}) joins activations of different shapes "
                f"({', '.join(map(str, shapes))}): only equal shapes have a DeepLIFT rule"
            )
        try:
            with torch.no_grad():
                shape = layer.shape(*blanks)
        except RuntimeError as error:
            raise UnsupportedLayerError(
                f"layer {name!r} ({kind}) does not take input of size "
                f"{'×'.join(map(str, self.input_size))}: {str(error).splitlines()[0]}"
            ) from None
        self._note(node, shape)
        if isinstance(layer, Reshape):
            self.memory[self.numbers[node]] = self.memory.get(inputs[0], inputs[0])
        self.steps.append(Step(name, layer, inputs, self.numbers[node]))

    def _inputs(self, node: fx.Node) -> tuple[int, ...]:
        found: list[int] = []
        fx.node.map_arg(
            (node.args, node.kwargs), lambda n: found.append(self.numbers[n]) if n in self.numbers else None
        )
        return tuple(found)

    def _alias(self, node: fx.Node, name: str) -> None:
        """An in-place layer: who reads its input afterwards reads its output.

        What shares memory with the input without being it, as before and after a reshaping, may not be read
        afterwards: whether it has changed would depend on how the activation lay in memory.
        """
        for changed in node.all_input_nodes[:1]:
            before = self.numbers[changed]
            place = self.memory.get(before, before)
            for other, number in self.numbers.items():  # identities return their input itself
                if number == before:
                    self.numbers[other] = self.numbers[node]
                elif self.memory.get(number, number) == place and any(
                    user not in self.known for user in other.users
                ):
                    raise UnsupportedLayerError(
                        f"layer {name!r} of {type(self.module).__name__} works in place on memory that "
                        f"{other.name!r} shares and that is read afterwards: have it work out of place"
                    )

    def _output(self, node: fx.Node) -> int:
        value = node.args[0]
        if (
            not isinstance(value, fx.Node)
            or value not in self.numbers
            or len(self.shapes[self.numbers[value]]) != 2
        ):
            raise UnsupportedLayerError(
                f"{type(self.module).__name__} must return one tensor of logits, (images, classes)"
            )
        return self.numbers[value]


ARITHMETIC = (operator.add, operator.iadd, operator.sub, operator.isub, operator.imul)
"""Of numbers, as sizes are, plain; of activations no more than additions are known."""


def _is_plain(target: Any) -> bool:
    """Calls that ask for shapes or compute with them: no activations come out."""
    return target in ("size", "dim") or target in (getattr, operator.getitem, operator.mul, operator.floordiv)


def _holds_tensor(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(item, Tensor) for item in values)


def _kind(module: nn.Module) -> str:
    return type(module).__name__


def convert(layer: Layer, change: Callable[[Tensor], Tensor]) -> Layer:
    """The layer with each of its parameters changed."""
    bound: Any = layer  # every layer is a dataclass, but the base class is not
    changed = {
        item.name: change(getattr(layer, item.name))
        for item in dataclasses.fields(bound)
        if isinstance(getattr(layer, item.name), Tensor)
    }
    return dataclasses.replace(bound, **changed) if changed else layer
