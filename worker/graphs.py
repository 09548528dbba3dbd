"""Symbolic tracing of classifiers: what both engines ask of torch.fx."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

from torch import fx, nn

from worker.errors import UnsupportedLayerError


class _Proxy(fx.Proxy):
    """torch.fx knows no `x += y`: Python would take `x = x + y` for it, and other names of x keep the old value."""

    def _in_place(self, function: Callable[[Any, Any], Any], other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: Any) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)


class LayerTracer(fx.Tracer):
    """Looks into every module but torch's own and those of the given types; calls no hooks."""

    def __init__(self, leaves: Collection[type[nn.Module]]) -> None:
        super().__init__()
        self._leaves = leaves
        self.returned: dict[str, fx.Node] = {}
        """Module path (of any depth) → what the module returned last."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in self._leaves or super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        value = super().call_module(m, m.forward, args, kwargs)  # not __call__: no hooks
        if isinstance(value, fx.Proxy):
            self.returned[self.path_of_module(m)] = value.node
        return value

    def graph_of(self, module: nn.Module) -> fx.Graph:
        """The module's graph. Raises UnsupportedLayerError where its forward code cannot be traced."""
        try:
            return self.trace(module)
        except Exception as error:  # noqa: BLE001 - forward code of any kind may fail in any way
            raise UnsupportedLayerError(
                f"{type(module).__name__} cannot be traced ({error}): its forward code must not depend on values"
            ) from None


def operation(node: fx.Node) -> str:
    """The name of what a node calls."""
    target = node.target
    return target if isinstance(target, str) else getattr(target, "__name__", str(target))
