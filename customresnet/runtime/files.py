"""Write files atomically, and format their paths."""

import csv
import io
import json
import math
import os
from pathlib import Path
from typing import Any

from customresnet.runtime.errors import UserError


def shown(path: Path) -> Path:
    """A path for display: relative to the current folder where possible."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


MAX_BYTES = 2**26
"""Bound of a record's file."""


def read_text(path: Path) -> str:
    """The text of a record.

    Raises:
        OSError, ValueError: It cannot be read, or is no regular file or too large.
    """
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path.name} is no regular file of at most {MAX_BYTES:,} bytes")
    return path.read_text(encoding="utf-8")


def read_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def write_atomically(path: Path, text: str) -> None:
    """Write a text file atomically: no one ever reads half of it."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def make_folder(folder: Path, option: str) -> None:
    """Create a folder, or raise a UserError that names ``option`` if it cannot be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"no permission to write into {folder}")
    except OSError as error:
        raise UserError(f"cannot write to {option} {folder} ({error})") from error


def as_json(content: Any) -> str:
    """JSON text that every parser accepts: non-finite numbers become null."""
    return json.dumps(_finite(content), indent=1, allow_nan=False)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def as_csv(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV text, with the columns of all of them."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_beside(path: Path, content: Any) -> None:
    """Write JSON into a run's folder and print its path. A failure is only a warning: the result was printed before."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, as_json(content))
    except OSError as error:
        print(f"warning: could not write {path} ({error})")
    else:
        print(f"written: {shown(path)}")
