"""Check values from a file: their kind, their range, their number, and the form of saved state."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from customresnet.runtime.errors import UserError

MAX_COUNT = 10**12
"""Of steps, epochs, images and seconds."""
MAX_VALUES, MAX_DEPTH = 1_000_000, 64
"""Bounds of a file's content: all its values, and their nesting."""


class DamagedError(UserError):
    """What a file contains cannot be used."""


@dataclass(frozen=True)
class Kind:
    """What a value must be, in words, and the function that decides."""

    words: str
    accepts: Callable[[Any], bool]

    @property
    def optional(self) -> "Kind":
        return Kind(f"{self.words}, or null", lambda value: value is None or self.accepts(value))


def is_number(value: Any) -> bool:
    """Whether a value is a finite int or float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def number(low: float, high: float = math.inf) -> Kind:
    return Kind(f"a number from {low:g} to {high:g}", lambda value: is_number(value) and low <= value <= high)


def whole(low: int, high: int = MAX_COUNT) -> Kind:
    words = f"a whole number from {low:,} to {high:,}"
    return Kind(words, lambda value: is_number(value) and isinstance(value, int) and low <= value <= high)


def one_of(*names: str) -> Kind:
    return Kind(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def several(count: int, each: Kind) -> Kind:
    words = f"{count} values, each {each.words}"
    return Kind(
        words, lambda value: isinstance(value, list | tuple) and len(value) == count and all(map(each.accepts, value))
    )


MAPPING = Kind("a mapping", lambda value: isinstance(value, dict))
NAMED = Kind("a mapping by name", lambda value: isinstance(value, dict) and all(isinstance(key, str) for key in value))
LIST = Kind("a list", lambda value: isinstance(value, list))
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
TEXT = Kind("a text", lambda value: isinstance(value, str))


def check_values(
    content: Any, required: Mapping[str, Kind], others: Mapping[str, Kind], where: str = "", what: str = "it"
) -> None:
    """Raise a DamagedError unless a mapping contains what is required, and all known values are of their kind."""
    if not isinstance(content, dict):
        raise DamagedError(f"{where.rstrip('.') or what} must be a mapping")
    if missing := [name for name in required if name not in content]:
        raise DamagedError(f"it lacks {', '.join(where + name for name in missing)}")
    for name, kind in {**required, **others}.items():
        if name in content and not kind.accepts(content[name]):
            raise DamagedError(f"{where}{name} must be {kind.words}; received {shortened(content[name])}")


def shortened(value: Any) -> str:
    """A value of any kind in a few words."""
    if not isinstance(value, int | float | str | bool | None):
        return f"a {type(value).__name__}"
    text = " ".join(repr(value).split()) if not isinstance(value, int) or abs(value) < 10**20 else "a huge number"
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_bounds(content: Any) -> None:
    """Raise a DamagedError if a value is nested too deeply, contains itself, or contains too many values."""
    left = MAX_VALUES
    level = [content]
    for _ in range(MAX_DEPTH):
        parts = [value for value in level if isinstance(value, dict | list | tuple | set | frozenset)]
        left -= sum(map(len, parts))
        if left < 0:
            raise DamagedError(f"it contains more than {MAX_VALUES:,} values")
        level = [inner for value in parts for inner in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return
    raise DamagedError(f"it is nested more than {MAX_DEPTH} levels deep")


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, in memory, and not one value seen many times."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return dense and tensor.nbytes <= tensor.untyped_storage().nbytes()


def check_like(saved: Any, own: Any, where: str, *, same: bool = False) -> None:
    """Raise a DamagedError unless saved state has the form of this run's own, so that it can be loaded.

    What is None or empty in the new run may be anything. With ``same``, the values must be the same too.
    """
    if own is None or (_is_nan(own) and _is_nan(saved)):
        return
    if isinstance(own, Tensor):
        fits = isinstance(saved, Tensor) and is_plain(saved) and saved.shape == own.shape
        if not fits:
            raise DamagedError(f"{where} must be a tensor {tuple(own.shape)}; received {_form(saved)}")
    elif isinstance(own, dict):
        if not isinstance(saved, dict):
            raise DamagedError(f"{where} must be a mapping; received {shortened(saved)}")
        for name, value in own.items():
            if name not in saved:
                raise DamagedError(f"it lacks {where}.{name}")
            check_like(saved[name], value, f"{where}.{name}", same=same)
    elif isinstance(own, list | tuple):
        if not isinstance(saved, list | tuple) or (own and len(saved) != len(own)):
            raise DamagedError(f"{where} must be a list of {len(own)}; received {_form(saved)}")
        for index, (one, other) in enumerate(zip(saved, own, strict=False)):
            check_like(one, other, f"{where}.{index}", same=same)
    elif isinstance(own, bool | str):
        if type(saved) is not type(own) or (same and saved != own):
            raise DamagedError(f"{where} must be {repr(own) if same else type(own).__name__}; received {_form(saved)}")
    elif isinstance(own, int | float):
        low = 0 if own >= 0 else -MAX_COUNT
        kind = whole(low) if isinstance(own, int) and not same else number(low, 1e300)
        if not kind.accepts(saved) or (same and not math.isclose(saved, own, rel_tol=1e-6)):
            raise DamagedError(f"{where} must be {own if same else kind.words}; received {_form(saved)}")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    return f"a list of {len(value)}" if isinstance(value, list | tuple) else shortened(value)
