"""Which code may be imported because a file names it: a recipe, a run's config.yaml or a checkpoint."""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from customresnet.runtime.errors import UserError

PACKAGES = ("customresnet", "pytorch_lightning", "lightning", "torch", "torchvision")
"""Classes of these packages are allowed; of functions, only those that build torchvision's models."""
FUNCTIONS = "torchvision.models."
PATHS = ("root", "default_root_dir", "run_name", "ckpt_path", "dirpath", "save_dir", "filename", "update")
"""Options whose values are names of files, such as data.zip, and never import paths."""
EVERYTHING = "*"

_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_trusted: set[str] = set()


def trust(*import_paths: str) -> None:
    """Allow files to name this code too, in this process; ``EVERYTHING`` allows all code."""
    _trusted.update(import_paths)


def start_command(words: Iterable[str], *, everything: bool) -> None:
    """Trust exactly the code that the user named on the command line, or ``everything``."""
    _trusted.clear()
    _trusted.update(path[0] for word in words for path in _IMPORT_PATH.finditer(word))
    if everything:
        trust(EVERYTHING)


def refuse_foreign_code(content: Any, what: str) -> None:
    """Raise a UserError if a file's content names code that it may not. Nothing is imported to find out.

    ``what`` names the file, for the error.
    """
    if EVERYTHING in _trusted:
        return
    for path, nested in _import_paths(content):
        if path not in _trusted and (nested or not _is_allowed(path)):
            raise UserError(
                f"{what} names {path}, which is no class of this package, Lightning, torch or torchvision that a file "
                "may name: it could run any code; pass --trust if you trust it"
            )


def _import_paths(content: Any, key: str = "", inside: bool = False) -> Iterator[tuple[str, bool]]:
    """The strings that something could be imported by, and whether it is a class within another's arguments."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _import_paths(value, str(name), inside or name == "init_args")
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _import_paths(value, key, inside)
    elif isinstance(content, str) and key not in PATHS and _IMPORT_PATH.fullmatch(content) and _exists(content):
        yield content, inside and key == "class_path"


def _exists(path: str) -> bool:
    """Whether the first part of an import path is a module; finding out imports nothing."""
    name = path.partition(".")[0]
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return True


def _is_allowed(path: str) -> bool:
    if path.partition(".")[0] not in PACKAGES:
        return False
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        return True  # whoever needs it says that it does not exist
    if path.startswith(FUNCTIONS) and inspect.isfunction(found):
        return True
    return inspect.isclass(found) and found.__module__.partition(".")[0] in PACKAGES
