"""Receptive fields: the part of the image that each layer's output depends on, from the network's graph."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

POINTWISE_MODULES = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm),
    *(nn.Dropout, nn.Dropout2d, nn.Identity),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Sigmoid, nn.Tanh, nn.Softplus),
)
POINTWISE = {
    *("add", "iadd", "sub", "isub", "mul", "imul", "div", "truediv", "neg", "clamp", "clone", "contiguous", "float"),
    *("dropout", "dropout2d", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish"),
    *("hardswish", "hardsigmoid", "sigmoid", "tanh", "softplus"),
}
"""Functions and tensor methods that act on each unit separately, without the underscore of in-place ones."""

NOT_TENSORS = (int, float, str, torch.Size, torch.dtype, torch.device, type(None))
"""Types of other values in a graph, such as the sizes of a view."""


@dataclass(frozen=True)
class Field:
    """The receptive fields of a map's units along either side: unit i depends on ``size`` pixels from i*jump - padding.

    The arithmetic is that of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks"
    (https://distill.pub/2019/computing-receptive-fields/). Statistics that a norm computes over the map do not count.

    Attributes:
        size: Pixels that one unit depends on.
        jump: Pixels from one unit to the next.
        padding: Pixels by which the first unit's field begins before the image.
        units: Units along a side of the map.
    """

    size: int
    jump: int
    padding: int
    units: int

    @property
    def start(self) -> float:
        """Center of the first unit's field; the center of the first pixel is 0.5."""
        return self.size / 2 - self.padding

    def behind(self, units: int, kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> "Field":
        """The field after a sliding window with ``units`` outputs along a side."""
        size = self.size + dilation * (kernel - 1) * self.jump
        return Field(size, self.jump * stride, self.padding + padding * self.jump, units)

    def pooled(self, units: int = 1) -> "Field":
        """The field after pooling the whole map to ``units`` per side, a divisor of its size."""
        window = self.units // units
        return self.behind(units, window, window)


@dataclass
class ReceptiveFields:
    """The receptive fields in a network.

    Attributes:
        layers: For each module without children by its name, the field of each call's output; None if unknown.
        logits: The field of the logits; None if unknown.
        unknown: Why the first unknown field is unknown; empty if all are known.
    """

    layers: dict[str, list[Field | None]] = field(default_factory=dict)
    logits: Field | None = None
    unknown: str = ""


class NoRule(Exception):
    """The graph contains an operation whose effect on the receptive field is not implemented."""


def receptive_fields(network: nn.Module, image_size: int, device: str = "cpu") -> ReceptiveFields:
    """Find the receptive fields in a network that takes square images ``(N, 3, H, W)``.

    A copy of the network in eval mode is traced with torch.fx, and run to get the shapes of its maps.
    """
    network = copy.deepcopy(network).eval().to(device=device, dtype=torch.float32)
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
        run = _Run(network, garbage_collect_values=False, graph=graph)
        run.extra_traceback = False  # the error is shown in one line
        with torch.no_grad():  # two images, to detect a view that mixes them
            run.run(torch.zeros(2, 3, image_size, image_size, device=device))
    except Exception as error:  # a forward may raise anything
        return ReceptiveFields(unknown=f"torch.fx cannot trace the network ({_first_line(error)})")
    fields: dict[fx.Node, Field | None] = {}  # without the nodes whose field is unknown
    reasons: list[str] = []
    for node in graph.nodes:
        value = run.env[node]
        if not isinstance(value, NOT_TENSORS) and not fields.keys() >= set(node.all_input_nodes):
            continue
        try:
            fields[node] = _field(node, run, fields)
        except NoRule as error:
            reasons.append(str(error))
    found = ReceptiveFields(logits=fields.get(graph.output_node()))
    for path, node in tracer.leaves:
        found.layers.setdefault(path, []).append(fields.get(node))
    for path, node in (*tracer.leaves, ("the output", graph.output_node())):
        if node in fields and fields[node] is None:
            reasons.append(f"{path} does not depend on the image")
    found.unknown = next(iter(reasons), "")
    return found


class _Tracer(fx.Tracer):
    """Records every call of a module without children, including those that are traced into."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: list[tuple[str, fx.Node]] = []

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, m.forward, args, kwargs)  # m.forward, so that hooks are not called
        if not list(m.children()):
            self.leaves.append((self.path_of_module(m), output.node))
        return output


class _Run(fx.Interpreter):
    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.fetch_attr(target).forward(*args, **kwargs)  # forward, so that hooks are not called


def _field(node: fx.Node, run: _Run, fields: dict[fx.Node, Field | None]) -> Field | None:
    """The field of a node's value; None if the value does not depend on the image."""
    value = run.env[node]
    if node.op == "placeholder" and isinstance(value, Tensor):
        return Field(size=1, jump=1, padding=0, units=value.shape[-1])
    inputs = [known for source in node.all_input_nodes if (known := fields.get(source)) is not None]
    if isinstance(value, NOT_TENSORS) or (isinstance(value, Tensor) and not inputs):
        return None
    args, kwargs = run.fetch_args_kwargs_from_env(node)
    name = getattr(node.target, "__name__", str(node.target))
    found = None
    if node.op == "call_module":
        module = run.fetch_attr(name)
        found = _after_module(module, inputs, value)
        name = f"{name}, {_first_line(module).rstrip('(')}"
    elif node.op == "output":
        found = inputs[0] if isinstance(value, Tensor) else None
    elif name == "getitem" and isinstance(run.env[node.all_input_nodes[0]], tuple):  # a part of what chunk returns
        found = inputs[0]
    else:
        found = _after_function(name.rstrip("_"), inputs, run.env[node.all_input_nodes[0]], value, args, kwargs)
    if found is None:
        raise NoRule(f"there is no rule for how {name} changes them")
    return found


def _after_module(module: nn.Module, inputs: list[Field], value: Any) -> Field | None:
    """The field after one of torch's own modules; None without a rule."""
    if not isinstance(value, Tensor):
        return None
    before, units = inputs[0], value.shape[-1]
    if isinstance(module, POINTWISE_MODULES):
        return before
    if isinstance(module, nn.Conv2d | nn.MaxPool2d):
        return _after_window(before, units, module.kernel_size, module.stride, module.padding, module.dilation)
    if isinstance(module, nn.AvgPool2d):
        return _after_window(before, units, module.kernel_size, module.stride, module.padding)
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return _after_adaptive_pooling(before, value)
    if isinstance(module, nn.Flatten | nn.Linear) and value.ndim == 2:  # a flattened map still has its units
        return before.pooled() if isinstance(module, nn.Linear) else before
    return None


def _after_function(
    name: str, inputs: list[Field], source: Tensor, value: Any, args: Sequence[Any], kwargs: dict[str, Any]
) -> Field | None:
    """The field after a function or a tensor method of ``source``; None without a rule."""
    before = inputs[0]
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if name == "chunk":
        dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
        return before if dim % source.ndim == 1 else None
    if not isinstance(value, Tensor):
        return None
    if name in POINTWISE:
        return _merged(inputs)
    if name in ("cat", "concat") and isinstance(dim, int) and dim % value.ndim == 1:
        return _merged(inputs)
    if name in ("max_pool2d", "avg_pool2d"):
        names = ("kernel_size", "stride", "padding", *(["dilation"] if name == "max_pool2d" else []))
        given = dict(zip(names, args[1:], strict=False)) | {key: kwargs[key] for key in names if key in kwargs}
        return _after_window(before, value.shape[-1], **given)
    if name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        return _after_adaptive_pooling(before, value)
    if name in ("mean", "amax") and source.ndim == 4 and isinstance(dim, tuple | list):
        return before.pooled() if {d % 4 for d in dim} == {2, 3} else None
    if name in ("flatten", "view", "reshape", "squeeze") and len(value) == len(source):
        same_map = value.ndim > 3 < source.ndim and value.shape[-2:] == source.shape[-2:]  # only regroups channels
        return before if value.ndim == 2 or same_map else None
    if name == "transpose" and source.ndim > 3:
        return before if {d % source.ndim for d in args[1:]} <= set(range(1, source.ndim - 2)) else None
    return None


def _merged(inputs: list[Field]) -> Field | None:
    """The smallest field that contains those of all inputs; None for maps whose units do not align."""
    first, jump = inputs[0], max(each.jump for each in inputs)
    if any(each.units != first.units or (each.jump != jump and each.units > 1) for each in inputs):
        return None
    padding = max(each.padding for each in inputs)
    return Field(padding + max(each.size - each.padding for each in inputs), jump, padding, first.units)


def _after_window(
    before: Field, units: int, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1
) -> Field | None:
    sides = [kernel_size, kernel_size if stride in (None, []) else stride, padding, dilation]
    pairs = [side if isinstance(side, tuple | list) else (side, side) for side in sides]
    if any(pair[0] != pair[-1] for pair in pairs):
        return None  # a window that is not square
    kernel, step, border, spread = (pair[0] for pair in pairs)
    if isinstance(border, str):
        border = spread * (kernel - 1) // 2 if border == "same" else 0
    return before.behind(units, kernel, step, border, spread)


def _after_adaptive_pooling(before: Field, value: Tensor) -> Field | None:
    units = value.shape[-1]
    if value.shape[-2] != units or before.units % units:
        return None  # its windows differ in size
    return before.pooled(units)


def _first_line(value: object) -> str:
    return next(iter(str(value).splitlines()), "") or type(value).__name__
