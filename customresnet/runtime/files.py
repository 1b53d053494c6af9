"""Write files so that nobody reads half of one, and say where they are."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from customresnet.runtime.errors import UserError


def shown(path: Path) -> Path:
    """A path as short as it can be said from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that nobody ever reads half of it."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def make_folder(folder: Path, option: str) -> None:
    """Make a folder, or say that it cannot be written to.

    Args:
        folder: The folder.
        option: What the user names another one by.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write into {folder}")
    except OSError as error:
        raise UserError(f"cannot write to {option} {folder} ({error})") from error


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text, with every column that any of them has."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
