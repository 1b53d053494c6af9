"""Checkpoint files: intact at every instant, the one before kept, damage noticed."""

import errno
import io
import os
import zipfile
from pathlib import Path

import pytest
import torch

from customresnet.runs import durable
from customresnet.runs.durable import damage, newest_intact, previous, write_checkpoint
from customresnet.runtime.errors import UserError


def content(value: float) -> dict[str, torch.Tensor]:
    return {"weights": torch.full((1000,), value)}


def value(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["weights"][0])


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_new_checkpoint_replaces_the_old_one_which_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "new folder/last.ckpt"
    for number in range(3):
        write_checkpoint(content(number), path)
    assert (value(path), value(previous(path))) == (2, 1)
    assert names(path.parent) == {"last.ckpt", "last.previous.ckpt"}


def test_without_hard_links_the_old_one_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    path = tmp_path / "last.ckpt"
    for number in range(2):
        write_checkpoint(content(number), path)
    assert (value(path), value(previous(path))) == (1, 0)


@pytest.mark.parametrize("step", ["open", "fsync", "read back", "link", "replace"])
def test_a_write_that_fails_at_any_step_leaves_the_newest_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(content(0), path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    original = Path.read_bytes
    patches = {
        "open": lambda: monkeypatch.setattr(Path, "open", fail),
        "fsync": lambda: monkeypatch.setattr(os, "fsync", fail),
        "read back": lambda: monkeypatch.setattr(Path, "read_bytes", lambda path: original(path)[:-1] + b"x"),
        "link": lambda: monkeypatch.setattr(durable, "_keep", fail),
        "replace": lambda: monkeypatch.setattr(os, "replace", fail),
    }
    patches[step]()
    with pytest.raises(OSError, match=r"No space left|differs from what was written"):
        write_checkpoint(content(1), path)
    monkeypatch.undo()
    assert value(newest_intact(path)) == 0
    assert ".last.ckpt.part" not in names(tmp_path)


def test_on_a_full_disk_the_checkpoint_before_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    for number in range(2):
        write_checkpoint(content(number), path)
    write = durable._write

    def only_two_fit(part: Path, data: memoryview) -> None:
        if previous(path).exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        write(part, data)

    monkeypatch.setattr(durable, "_write", only_two_fit)
    write_checkpoint(content(2), path)
    assert (value(path), value(previous(path))) == (2, 1)


def test_every_flipped_bit_of_a_tensor_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    write_checkpoint(content(0.5), path)
    whole = path.read_bytes()
    assert damage(path) is None
    start = whole.index(torch.full((1000,), 0.5).numpy().tobytes())
    for offset in range(start, start + 4000, 97):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        assert "checksum" in str(damage(path))


@pytest.mark.parametrize("length", [0, 1, 100, 2000, -1, -30])
def test_a_truncated_checkpoint_is_replaced_by_the_one_before_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    path = tmp_path / "last.ckpt"
    for number in range(2):
        write_checkpoint(content(number), path)
    path.write_bytes(path.read_bytes()[:length])
    assert newest_intact(path) == previous(path)
    assert "last.ckpt is damaged" in capsys.readouterr().err
    previous(path).write_bytes(b"also damaged")
    with pytest.raises(UserError, match=r"last\.ckpt is truncated or not a checkpoint"):
        newest_intact(path)


def test_an_archive_that_zipfile_cannot_read_is_damaged(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 100)
    data = bytearray(buffer.getvalue())
    data[8] = 99  # a compression method that does not exist
    data[data.index(b"PK\x01\x02") + 10] = 99
    path = tmp_path / "last.ckpt"
    path.write_bytes(data)
    assert damage(path)
