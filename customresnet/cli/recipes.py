"""Find the recipe that `--config` names, one of the package's presets or a file, and check what it contains."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import yaml

from customresnet.runtime.errors import UserError
from customresnet.runtime.files import shown
from customresnet.runtime.recipes import MAX_BYTES, BoundsError, load_yaml, read_recipe
from customresnet.runtime.trust import PATHS, refuse_foreign_code

PRESETS = Path(__file__).parent / "presets"


OBJECTS = ("callbacks", "logger", "plugins", "profiler", "strategy")
"""Options of the Trainer that may name classes."""


def is_preset(name: str) -> bool:
    """Whether a preset has this name."""
    return (PRESETS / f"{name}.yaml").is_file()


def recipe_path(value: str) -> Path:
    """The file that `--config` names: a preset or a path."""
    if Path(value).suffix or os.sep in value or Path(value).is_file():
        if not Path(value).is_file():
            raise UserError(f"`config` {value}: no such file")
        return Path(value)
    if not is_preset(value):
        known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
        raise UserError(f"`config` {value}: no such preset or file; presets: {known}")
    return PRESETS / f"{value}.yaml"


def checked_recipe(path: Path, flags: Collection[str]) -> str:
    """A recipe for jsonargparse: its path, or its text without the objects that ``flags`` replace.

    Raises:
        UserError: The recipe, or a file that it names, is no YAML within the bounds, or names code that it may not.
    """
    what = f"`config` {shown(path)}"
    recipe = read_recipe(path, what)
    trainer = recipe.get("trainer")
    replaced = [name for name in OBJECTS if f"--trainer.{name}" in flags and isinstance(trainer, dict)]
    dropped = [name for name in replaced if trainer.pop(name, None) is not None]  # type: ignore[union-attr]
    for section in ("trainer", "model", "data"):
        value = recipe.get(section)
        if not (value is None or isinstance(value, dict) or (isinstance(value, str) and _files(value, path))):
            raise UserError(f"{what}: {section} must be a section of options; received {str(value)[:60]}")
    level: list[Any] = [recipe]
    for _ in range(5):  # files that files name
        refuse_foreign_code(level, what)
        try:
            level = [content for text in _texts(level) for content in _contents(text, path)]
        except BoundsError as error:
            raise UserError(f"{what} contains a text that is no usable YAML: {error}") from error
        if not level:
            return yaml.safe_dump(recipe) if dropped else str(path)
    raise UserError(f"{what}: files that name files are nested too deeply")


def _texts(content: Any, key: str = "") -> Iterator[str]:
    """The strings that jsonargparse may take for YAML, or for the name of a YAML file."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _texts(value, str(name))
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value, key)
    elif isinstance(content, str) and key not in PATHS:
        yield content


def _files(text: str, recipe: Path) -> list[Path]:
    """The files of this name: seen from the recipe's folder, or from the current one."""
    return [path for path in (recipe.parent / text, Path(text)) if text and os.path.isfile(path)]


def _contents(text: str, recipe: Path) -> Iterator[Any]:
    """What a string stands for, if it is YAML of several values, or names a file of it."""
    small = [path for path in _files(text, recipe) if path.stat().st_size <= MAX_BYTES]
    for yaml_text in (text, *(path.read_text(encoding="utf-8", errors="replace") for path in small)):
        if yaml_text is text and not any(mark in text for mark in "{[:*"):
            continue
        try:
            content = load_yaml(yaml_text)
        except BoundsError:
            raise
        except yaml.YAMLError:  # not meant as YAML
            continue
        if isinstance(content, dict | list):
            yield content
