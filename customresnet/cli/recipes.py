"""Recipes: YAML files of flags for ``--config``. Those that ship with the package are presets, and go by name."""

import os
from pathlib import Path
from typing import Any

import yaml

from customresnet.runtime.errors import UserError

PRESETS = Path(__file__).parent / "presets"


def is_preset(name: str) -> bool:
    """Whether a recipe of this name ships with the package."""
    return (PRESETS / f"{name}.yaml").is_file()


def path_of(value: str) -> Path:
    """The file that ``--config`` means: a preset by its bare name, or a path."""
    if Path(value).suffix or os.sep in value or Path(value).is_file():
        if not Path(value).is_file():
            raise UserError(f"--config {value}: no such file")
        return Path(value)
    if not is_preset(value):
        known = ", ".join(sorted(preset.stem for preset in PRESETS.glob("*.yaml")))
        raise UserError(f"--config {value}: no such preset or file; presets: {known}")
    return PRESETS / f"{value}.yaml"


def read(path: Path, flag: str) -> dict[str, Any]:
    """The flags in a recipe.

    Args:
        path: The file.
        flag: What the user gave, for the errors.
    """
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{flag} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise UserError(f"{flag} holds no flags")
    return recipe


def with_options(path: Path, flag: str, section: str, options: dict[str, Any]) -> str:
    """The text of a recipe, new or existing, with some options of one section set anew; comments are not kept.

    Raises:
        UserError: Nothing can be written there, so that this is known before anything is computed for it.
    """
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"{flag} must be a .yaml file")
    if not path.parent.is_dir():
        raise UserError(f"{flag}: there is no folder {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"{flag} cannot be written")
    recipe = read(path, flag) if path.is_file() else {}
    if not isinstance(recipe.setdefault(section, {}), dict):
        raise UserError(f"{flag}: {section} holds no options")
    recipe[section].update(options)
    return yaml.safe_dump(recipe, sort_keys=False)
