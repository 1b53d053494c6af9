"""Read and update recipes: YAML files of flags."""

import os
from pathlib import Path
from typing import Any

import yaml

from customresnet.runtime.errors import UserError


def read_recipe(path: Path, what: str) -> dict[str, Any]:
    """The flags in a recipe. ``what`` is the parameter and its value, for errors."""
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"{what} cannot be written")
    recipe = read_recipe(path, what) if path.is_file() else {}
    if not isinstance(recipe.setdefault(section, {}), dict):
        raise UserError(f"{what}: {section} is not a section of options")
    recipe[section].update(options)
    return yaml.safe_dump(recipe, sort_keys=False)
