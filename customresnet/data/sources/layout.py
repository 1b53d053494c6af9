"""Find the splits and classes of a data set in the names of its files."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np

from customresnet.data.labelled_images import Split, class_differences, class_order
from customresnet.data.sources.image_files import image_suffixes, is_hidden
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import listed

WORDS: dict[Split, str] = {
    "train": "train|training|trn",
    "val": "val|valid|validation|dev|eval",
    "test": "test|testing|tst",
}
SPLIT_NAME = r"(.+[ _.-])?({})([ _.-]?(set|data|dataset|images|imgs|split|\d+))?"
"""The names of a split's folder: ``train``, ``Training``, ``test_set``, ``seg_train``, ``val2017``."""

IMAGES: dict[Split, str] = {"train": "training images", "val": "held-out validation images", "test": "test images"}
RULE = "images must be in train/<class>/ and test/<class>/"


@dataclass
class Folder:
    """A folder of a data set: what it contains, in the order of the names."""

    path: str = ""  # below the root, with "/" at the end
    folders: dict[str, "Folder"] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)  # directly in it
    others: list[str] = field(default_factory=list)  # also directly in it: the paths of files that are not images

    @cached_property
    def all_images(self) -> list[str]:
        """The images in it and in all folders below."""
        return sorted([*self.images, *(image for folder in self.folders.values() for image in folder.all_images)])

    @cached_property
    def all_others(self) -> list[str]:
        return sorted([*self.others, *(other for folder in self.folders.values() for other in folder.all_others)])

    @cached_property
    def filled(self) -> dict[str, "Folder"]:
        """The folders directly in it that contain images."""
        return {name: folder for name, folder in self.folders.items() if folder.all_images}

    def __str__(self) -> str:
        """What it contains."""
        found = [f"{folder.path} ({_images(folder.all_images)})" for folder in self.folders.values()]
        return listed([*found, *([_images(self.images)] if self.images else []), *self.others], 5)


@dataclass(frozen=True)
class Layout:
    """The images of a data set.

    Attributes:
        classes: The classes, in order.
        files: The names of each class's images, in order, for train, test and, if there are held-out images, val.
        notes: What was understood and what was skipped, in words.
    """

    classes: tuple[str, ...]
    files: dict[Split, dict[str, list[str]]]
    notes: tuple[str, ...]


def find_layout(names: Iterable[str], root: Path, test_share: float | None = None) -> Layout:
    """Find the images of the only data set among the names of all files and folders below ``root``.

    The names of folders end with "/". Folders above the splits are looked through, and so are those in a class.

    Raises:
        UserError: There is no data set, or several; or its splits have different classes.
    """
    top, hidden = _tree(names)
    folders = _find_splits(top, root, test_share)
    if "test" not in folders and test_share is None:
        folders["test"] = folders.pop("val")
    _check_classes(folders, root)
    files = {s: {name: inner.all_images for name, inner in folder.folders.items()} for s, folder in folders.items()}
    said = {split: f"{IMAGES[split]} in {folder.path or 'its folders'}" for split, folder in folders.items()}
    if "test" not in files and test_share is not None:
        files["train"], files["test"] = _split_off(files["train"], test_share, root)
        said["test"] = f"test images: {100 * test_share:g}% of each class, chosen at random, but the same in every run"
    notes = [f"{root}: {', '.join(said[split] for split in IMAGES if split in said)}"]
    nested = [inner.path for folder in folders.values() for c in folder.folders.values() for inner in c.filled.values()]
    if nested:
        notes.append(f"images in the folders of a class belong to the class: {listed(nested)}")
    used = {name for split in files.values() for images in split.values() for name in images}
    skipped = {
        "images outside of the class folders": [name for name in top.all_images if name not in used],
        "files that are not images": top.all_others,
        "hidden files and folders": hidden,
    }
    notes += [f"skipped {what} ({len(found):,}): {listed(found)}" for what, found in skipped.items() if found]
    printable = tuple(note.encode("utf-8", "backslashreplace").decode() for note in notes)
    return Layout(class_order(files["train"]), files, printable)


def _tree(names: Iterable[str]) -> tuple[Folder, list[str]]:
    """The tree of all files and folders, and the paths of those that are hidden."""
    top, hidden = Folder(), set()
    for name in sorted(names):
        parts = PurePosixPath(name).parts
        first_hidden = next((number for number, part in enumerate(parts, 1) if is_hidden(part)), None)
        if first_hidden:
            hidden.add("/".join(parts[:first_hidden]))
            continue
        folder = top
        for part in parts if name.endswith("/") else parts[:-1]:
            key = unicodedata.normalize("NFC", part)  # macOS writes letters and their accents as two characters
            folder = folder.folders.setdefault(key, Folder(f"{folder.path}{part}/"))
        if not name.endswith("/"):
            is_image = PurePosixPath(name).suffix.lower() in image_suffixes()
            (folder.images if is_image else folder.others).append(name)
    return top, sorted(hidden)


def _images(names: list[str]) -> str:
    return f"{len(names):,} image{'s' * (len(names) != 1)}"


def _split_of(name: str) -> Split | None:
    """The split that a folder's name means."""
    return next((split for split in WORDS if re.fullmatch(SPLIT_NAME.format(WORDS[split]), name.casefold())), None)


def _splits(folder: Folder) -> dict[Split, list[Folder]]:
    """The folders of each split directly in a folder, those of val and test with at least one of train's classes."""
    found: dict[Split, list[Folder]] = {split: [] for split in WORDS}
    for name, inner in folder.filled.items():
        split, inner = _split_of(name), _look_through(inner)
        if split and inner.filled:
            found[split].append(inner)
    classes = {name for inner in found["train"] for name in inner.folders}
    return {
        split: kept
        for split, folders in found.items()
        if (kept := [inner for inner in folders if split == "train" or classes & inner.folders.keys()])
    }


def _look_through(folder: Folder) -> Folder:
    """The first folder with several folders of images, if those above have only one each: train/images/<class>."""
    inner = folder
    while len(inner.filled) == 1:
        (inner,) = inner.filled.values()
    return inner if inner.filled else folder


def _data_sets(folder: Folder) -> list[Folder]:
    """The outermost folders that contain a training split and another one."""
    splits = _splits(folder)
    if "train" in splits and len(splits) > 1:
        return [folder]
    return [found for inner in folder.folders.values() for found in _data_sets(inner)]


def _find_splits(top: Folder, root: Path, test_share: float | None) -> dict[Split, Folder]:
    """The folders of the splits: train and at least one of val and test, or only train if `test_share` is given."""
    found = _data_sets(top)
    if len(found) > 1:
        names = listed([repr(folder.path.rstrip("/")) for folder in found], 5)
        raise UserError(f"`root` {root} contains several data sets: {names}; choose one of them as `root`")
    if not found:
        return {"train": _without_split(top, root, test_share)}
    splits = {}
    for split, folders in _splits(found[0]).items():
        if len(folders) > 1:
            names = " and ".join(folder.path for folder in folders)
            raise UserError(f"`root` {root} has several {split} folders: {names}; rename or remove all but one")
        splits[split] = folders[0]
    if "test" in splits and test_share is not None:
        raise UserError(f"`test_share` {test_share:g}: `root` {root} has test images in {splits['test'].path}")
    return splits


def _without_split(top: Folder, root: Path, test_share: float | None) -> Folder:
    """The folder of the classes, if there is no split: the first one with several folders of images."""
    folder, unlabeled = _look_through(top), []
    splits = {name: _split_of(name) for name in folder.filled}
    deep = [n for n, inner in folder.filled.items() if len(inner.filled) > 1 and splits[n] not in ("val", "test")]
    if [splits[name] for name in deep] == ["train"]:
        unlabeled = [folder.filled[name].path for name in splits if splits[name] in ("val", "test")]
        folder = _look_through(folder.filled[deep[0]])
        splits = {name: _split_of(name) for name in folder.filled}
    where = f"`root` {root}" + (f", in {folder.path}" if folder.path else "")
    if not top.all_images:
        archives = [f"; {root}/{name} may be the `root`" for name in top.all_others if name.lower().endswith(".zip")]
        found = listed(top.all_others, 5) or "no files"
        raise UserError(f"{where}: no images that can be read; found {found}; {RULE}{''.join(archives[:1])}")
    if len(splits) < 2 or None not in splits.values():
        raise UserError(f"{where}: no folders of classes; found {folder}; {RULE}")
    for inner in folder.filled.values():
        inside = {name: _split_of(name) for name in inner.filled}
        if len({*inside.values()} - {None}) > 1:
            raise UserError(f"{where}: the splits are inside of the classes; found {inner}; {RULE}")
    if test_share is None:
        why = f" (not divided into these classes: {', '.join(unlabeled)})" if unlabeled else ""
        raise UserError(
            f"{where}: no test images{why}; found the classes {listed(sorted(splits))}: pass `test_share` 0.2 to test "
            f"on 20% of each, or move some images: {RULE}"
        )
    return folder


def _split_off(classes: dict[str, list[str]], share: float, root: Path) -> tuple[dict[str, list[str]], ...]:
    """Split each class's images into training and test images: at random, but always in the same way."""
    if single := [name for name, images in classes.items() if len(images) < 2]:
        raise UserError(
            f"`test_share` {share:g} needs at least 2 images of each class; `root` {root} has 1 of {listed(single, 5)}"
        )
    parts: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for number, name in enumerate(class_order(classes)):
        images = classes[name]
        order = np.random.default_rng(number).permutation(len(images))
        size = min(len(images) - 1, max(1, round(share * len(images))))
        for part, indices in zip(parts, (order[size:], order[:size]), strict=True):
            part[name] = [images[i] for i in sorted(indices)]
    return parts


def _check_classes(folders: dict[Split, Folder], root: Path) -> None:
    """Raise a UserError if the splits have different classes, a class has no images, or there is only one."""
    train = folders["train"]
    if unreadable := [name for name in train.folders if name != name.encode("utf-8", "ignore").decode()]:
        raise UserError(f"`root` {root}: the name of the class folder {unreadable[0]!a} is not UTF-8; rename it")
    for folder in list(folders.values())[1:]:
        names = {inner.path.rstrip("/"): inner.folders for inner in (train, folder)}
        if differences := class_differences(names):
            raise UserError(f"{' and '.join(names)} in `root` {root} have different classes ({differences}); {RULE}")
    empty = [inner for folder in folders.values() for inner in folder.folders.values() if not inner.all_images]
    if empty:
        others = [other for inner in empty for other in inner.all_others]
        raise UserError(
            f"no images in {listed([inner.path.rstrip('/') for inner in empty])} of `root` {root}, where there are "
            f"{listed(others) or 'no files'}; fill or remove the class folder"
        )
    if len(train.folders) < 2:
        raise UserError(
            f"`root` {root} has only the class {', '.join(train.folders)}; classification needs two or more"
        )
