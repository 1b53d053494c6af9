"""Read and update recipes: YAML files of flags, which may come from anywhere and are bounded in every way."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from customresnet.runtime.errors import UserError

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_NODES = 20_000
"""Bounds of a YAML file: its size, its nesting, and its values after every alias is replaced by what it stands for."""

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BoundsError(yaml.YAMLError):
    """A YAML text exceeds the bounds, repeats a key, or contains an alias of itself."""


@dataclass
class _Collection:
    """A mapping or sequence that is being read."""

    anchor: str | None
    mapping: bool
    nodes: int = 1
    is_key: bool = True
    keys: set[str] = field(default_factory=set)


def check_yaml(text: str) -> None:
    """Raise a BoundsError if a text exceeds the bounds, repeats a key, or contains an alias of itself."""
    if len(text) > MAX_BYTES:
        raise BoundsError(f"it is larger than {MAX_BYTES:,} bytes")
    parents: list[_Collection] = []
    sizes: dict[str, int] = {}  # of finished values, by anchor
    for event in yaml.parse(text, Loader=LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            parents.append(_Collection(event.anchor, isinstance(event, yaml.MappingStartEvent)))
            if len(parents) > MAX_DEPTH:
                raise BoundsError(f"it is nested more than {MAX_DEPTH} levels deep")
            continue
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise BoundsError(f"the alias *{event.anchor} stands for nothing, or for itself")
            anchor, nodes = None, sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            anchor, nodes = event.anchor, 1
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = parents.pop()
            anchor, nodes = ended.anchor, ended.nodes
        else:  # the start or end of the document
            continue
        if anchor:
            sizes[anchor] = nodes
        if not parents:
            continue
        parent = parents[-1]
        parent.nodes += nodes
        if parent.nodes > MAX_NODES:
            raise BoundsError(f"it contains more than {MAX_NODES:,} values, with its aliases replaced")
        if parent.mapping:
            if parent.is_key and isinstance(event, yaml.ScalarEvent):
                if event.value in parent.keys:
                    raise BoundsError(f"the key {event.value} is repeated")
                parent.keys.add(event.value)
            parent.is_key = not parent.is_key


def load_yaml(text: str) -> Any:
    """The value of a YAML text within the bounds, of plain types.

    Raises:
        yaml.YAMLError: The text is no such YAML.
    """
    check_yaml(text)
    try:
        return yaml.load(text, Loader=LOADER)  # a safe loader
    except (ValueError, OverflowError, RecursionError) as error:  # a number or date that Python cannot represent
        raise yaml.YAMLError(str(error)) from error


def read_recipe(path: Path, what: str) -> dict[str, Any]:
    """The flags in a recipe. ``what`` is the parameter and its value, for errors."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise yaml.YAMLError(f"it is larger than {MAX_BYTES:,} bytes")
        recipe = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{what} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise UserError(f"{what} contains no flags")
    return recipe


def recipe_with(path: Path, what: str, section: str, options: dict[str, Any]) -> str:
    """The text of a recipe, new or existing, with some options of one section set; comments are lost.

    Raises:
        UserError: The file cannot be written. Call this first to find out before a long computation.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{what} must be a .yaml file")
    if not path.parent.is_dir():
        raise UserError(f"{what}: there is no folder {path.parent}")
    if (path.exists() and not path.is_file()) or not os.access(path.parent, os.W_OK):
        raise UserError(f"{what} cannot be written")
    recipe = read_recipe(path, what) if path.is_file() else {}
    if not isinstance(recipe.setdefault(section, {}), dict):
        raise UserError(f"{what}: {section} is not a section of options")
    recipe[section].update(options)
    return yaml.safe_dump(recipe, sort_keys=False)
