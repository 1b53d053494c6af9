"""Presets: recipes included in the package, which `--config` accepts by name."""

import os
from pathlib import Path

from customresnet.runtime.errors import UserError

PRESETS = Path(__file__).parent / "presets"


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
