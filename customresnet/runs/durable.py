"""Write checkpoints so that neither a crash nor a full disk loses one, and find the newest intact one."""

import io
import os
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from customresnet.runs.validation import implausible
from customresnet.runtime.errors import UserError
from customresnet.runtime.files import shown


def previous(path: Path) -> Path:
    """Where the checkpoint before the newest one is kept."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint, and keep the one before it as ``previous(path)``.

    The file is written beside its place, on the same file system, flushed to the disk, read back and compared before
    it replaces the old one. So ``path`` is intact at every instant, whatever ends the process or the machine.

    Raises:
        OSError: It could not be written; ``path`` is unchanged.
    """
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        try:
            _write(part, buffer.getbuffer())
        except OSError:
            if not previous(path).exists():
                raise
            previous(path).unlink()  # perhaps the disk is full: make room, and keep the newest one
            _write(part, buffer.getbuffer())
        if path.exists():
            _keep(path)
        os.replace(part, path)
        _flush_folder(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write(part: Path, content: memoryview) -> None:
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    if part.read_bytes() != content:
        raise OSError(f"{part.name} differs from what was written")


def _keep(path: Path) -> None:
    """Make ``path`` the previous checkpoint, without a moment in which it does not exist."""
    link = path.with_name(f".{path.name}.link")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # a file system without hard links
        os.replace(path, previous(path))
    else:
        os.replace(link, previous(path))


def _flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the operating system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def newest_intact(path: Path) -> Path:
    """``path`` if it is an intact checkpoint, else the one before it, with a warning.

    Raises:
        UserError: Both are damaged.
    """
    reason = damage(path)
    if reason is None:
        return path
    if previous(path).is_file() and damage(previous(path)) is None:
        before = shown(previous(path))
        print(
            f"warning: {shown(path)} is damaged ({reason}); using the checkpoint before it, {before}", file=sys.stderr
        )
        return previous(path)
    raise UserError(f"`ckpt_path` {path} is truncated or not a checkpoint ({reason})")


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, by its checksums, which torch.load does not compare; None if intact."""
    try:
        with zipfile.ZipFile(path) as archive:
            if reason := implausible(archive, path):
                return reason
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        return str(error).splitlines()[0][:100] if str(error) else type(error).__name__
    return f"{damaged} has a wrong checksum" if damaged else None
