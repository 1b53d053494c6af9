"""The receptive field of every layer, followed through the network's graph."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from customresnet.runtime.errors import UserError

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
"""Functions and tensor methods that leave every unit where it is, without the underscore of those in place."""

PLAIN = (int, float, str, torch.Size, torch.dtype, torch.device, type(None))
"""What a graph may hold beside tensors: sizes, say, which a view is then made with."""


@dataclass(frozen=True)
class Field:
    """What the units of a map see of the image, along either side: unit i sees ``size`` pixels from i*jump - padding.

    The arithmetic is that of Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks"
    (https://distill.pub/2019/computing-receptive-fields/). What a normalisation reads to scale a unit is not counted.

    Attributes:
        size: Pixels that one unit sees: the receptive field.
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
        """Centre of the first unit's field; the centre of the first pixel is 0.5."""
        return self.size / 2 - self.padding

    def behind(self, units: int, kernel: int, stride: int, padding: int = 0, dilation: int = 1) -> "Field":
        """The field behind a window that slides over the map and leaves ``units`` a side."""
        size = self.size + dilation * (kernel - 1) * self.jump
        return Field(size, self.jump * stride, self.padding + padding * self.jump, units)

    def pooled(self, units: int = 1) -> "Field":
        """The field behind a pooling of the whole map to ``units`` a side, of which it has a multiple."""
        window = self.units // units
        return self.behind(units, window, window)


@dataclass(frozen=True)
class Step:
    """One call of a leaf module.

    Attributes:
        path: Its name inside the network.
        module: A copy of it.
        output: Its output ``(N, ...)``, a shape without values.
        field: The field of a unit of its output.
    """

    path: str
    module: nn.Module
    output: Tensor
    field: Field


def follow(network: nn.Module, image_size: int) -> tuple[list[Step], Field]:
    """Follow a square image through a network's graph.

    The graph is traced with torch.fx on a copy in evaluation mode whose tensors have shapes but no values: nothing is
    computed, and the network stays as it is.

    Returns:
        The calls of leaf modules in order of execution, and the field of the logits.

    Raises:
        UserError: The network cannot be traced, does not take such images, or does something that has no rule here.
    """
    name = type(network).__name__
    network = copy.deepcopy(network).eval().to(device="meta", dtype=torch.float32)
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    except Exception as error:  # whatever a forward may raise that was not written for this
        raise UserError(f"{name}: torch.fx cannot trace it ({_first_line(error)})") from error
    run = _Run(network, garbage_collect_values=False, graph=graph)
    run.extra_traceback = False  # the error is shown in one line
    try:
        run.run(torch.empty(2, 3, image_size, image_size, device="meta"))  # two, so that a view that mixes them shows
    except Exception as error:
        raise UserError(f"{name} does not take images of --image_size {image_size} ({_first_line(error)})") from error
    fields: dict[fx.Node, Field | None] = {}
    for node in graph.nodes:
        fields[node] = _field(node, run, fields)
    steps = [Step(path, module, run.env[node], _known(fields[node], path)) for path, module, node in tracer.leaves]
    return steps, _known(fields[graph.output_node()], "the output")


class _Tracer(fx.Tracer):
    """Notes every call of a module without children, one whose own operations are traced among them."""

    def __init__(self) -> None:
        super().__init__()
        self.leaves: list[tuple[str, nn.Module, fx.Node]] = []

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        output = super().call_module(m, m.forward, args, kwargs)  # forward itself: hooks are not to see this
        if not list(m.children()):
            self.leaves.append((self.path_of_module(m), m, output.node))
        return output


class _Run(fx.Interpreter):
    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.fetch_attr(target).forward(*args, **kwargs)  # likewise


def _field(node: fx.Node, run: _Run, fields: dict[fx.Node, Field | None]) -> Field | None:
    """The field of a node's value; None if it does not depend on the image."""
    value = run.env[node]
    if node.op == "placeholder" and isinstance(value, Tensor):
        return Field(size=1, jump=1, padding=0, units=value.shape[-1])
    inputs = [field for source in node.all_input_nodes if (field := fields[source]) is not None]
    if isinstance(value, PLAIN) or (isinstance(value, Tensor) and not inputs):
        return None
    args, kwargs = run.fetch_args_kwargs_from_env(node)
    name = getattr(node.target, "__name__", str(node.target))
    field = None
    if node.op == "call_module":
        module = run.fetch_attr(name)
        field = _behind_module(module, inputs, value)
        name = f"{name}, {_first_line(module)}"
    elif node.op == "output":
        field = inputs[0] if isinstance(value, Tensor) else None
    elif isinstance(value, Tensor):
        field = _behind_function(name.rstrip("_"), inputs, run.env[node.all_input_nodes[0]], value, args, kwargs)
    if field is None:
        raise UserError(f"{type(run.module).__name__}: the receptive field has no rule for {name}")
    return field


def _behind_module(module: nn.Module, inputs: list[Field], value: Any) -> Field | None:
    """The field behind one of torch's own modules; None without a rule."""
    if not isinstance(value, Tensor):
        return None
    before, units = inputs[0], value.shape[-1]
    if isinstance(module, POINTWISE_MODULES):
        return before
    if isinstance(module, nn.Conv2d | nn.MaxPool2d):
        return _behind_window(before, units, module.kernel_size, module.stride, module.padding, module.dilation)
    if isinstance(module, nn.AvgPool2d):
        return _behind_window(before, units, module.kernel_size, module.stride, module.padding)
    if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
        return _behind_adaptive_pooling(before, value)
    if isinstance(module, nn.Flatten | nn.Linear) and value.ndim == 2:  # a flattened map still has its units
        return before.pooled() if isinstance(module, nn.Linear) else before
    return None


def _behind_function(
    name: str, inputs: list[Field], source: Tensor, value: Tensor, args: Sequence[Any], kwargs: dict[str, Any]
) -> Field | None:
    """The field behind a function or a tensor method of ``source``; None without a rule."""
    before = inputs[0]
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if name in POINTWISE:
        return _where_paths_meet(inputs)
    if name in ("cat", "concat") and isinstance(dim, int) and dim % value.ndim == 1:
        return _where_paths_meet(inputs)
    if name in ("max_pool2d", "avg_pool2d"):
        names = ("kernel_size", "stride", "padding", *(["dilation"] if name == "max_pool2d" else []))
        given = dict(zip(names, args[1:], strict=False)) | {key: kwargs[key] for key in names if key in kwargs}
        return _behind_window(before, value.shape[-1], **given)
    if name in ("adaptive_avg_pool2d", "adaptive_max_pool2d"):
        return _behind_adaptive_pooling(before, value)
    if name in ("mean", "amax") and source.ndim == 4 and isinstance(dim, tuple | list):
        return before.pooled() if {d % 4 for d in dim} == {2, 3} else None
    if name in ("flatten", "view", "reshape", "squeeze") and value.ndim == 2 and len(value) == len(source):
        return before
    return None


def _where_paths_meet(paths: list[Field]) -> Field | None:
    """The larger field, or what overlapping ones cover together; None for maps whose units do not lie alike."""
    first, jump = paths[0], max(path.jump for path in paths)
    if any(path.units != first.units or (path.jump != jump and path.units > 1) for path in paths):
        return None
    padding = max(path.padding for path in paths)
    return Field(padding + max(path.size - path.padding for path in paths), jump, padding, first.units)


def _behind_window(
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


def _behind_adaptive_pooling(before: Field, value: Tensor) -> Field | None:
    units = value.shape[-1]
    if value.shape[-2] != units or before.units % units:
        return None  # its windows are not alike
    return before.pooled(units)


def _known(field: Field | None, what: str) -> Field:
    if field is None:
        raise UserError(f"{what} does not depend on the image, so it has no receptive field")
    return field


def _first_line(thing: object) -> str:
    return next(iter(str(thing).splitlines()), "") or type(thing).__name__
