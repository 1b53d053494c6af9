"""Tests of the folders that people have: each is read, with a word about what it was understood to be, or refused."""

import io
import os
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from customresnet import CIFAR10DataModule
from customresnet.data import sources
from customresnet.runtime.errors import UserError

CLASSES = ("cat", "dog", "owl")


def image_bytes(number: int) -> bytes:
    """A PNG of one color, which no other number has."""
    data = io.BytesIO()
    Image.new("RGB", (32, 32), (number % 256, number // 256, 7)).save(data, "png")
    return data.getvalue()


def in_classes(*folders: str, classes: Iterable[str] = CLASSES, each: int = 3) -> list[str]:
    """The names of images in class folders: ``train/cat/0.png``."""
    return [f"{folder}/{name}/{i}.png".lstrip("/") for folder in folders for name in classes for i in range(each)]


def as_directory(names: Iterable[str], path: Path) -> Path:
    for number, name in enumerate(names):
        file = path / name
        if name.endswith("/"):
            file.mkdir(parents=True, exist_ok=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image_bytes(number))
    return path


def as_zip(names: Iterable[str], path: Path) -> Path:
    path = path.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(name, b"" if name.endswith("/") else image_bytes(number))
    return path


@pytest.fixture(params=[as_directory, as_zip])
def make(request, tmp_path) -> Callable[[Iterable[str]], Path]:
    return lambda names: request.param(names, tmp_path / "data")


def split_names(root: Path, names: list[str], split: str, test_share: float | None = None) -> list[str]:
    """The names of the images that a split has, in order."""
    known = {(number % 256, number // 256, 7): name for number, name in enumerate(names)}
    data = sources.load("folder", root, split, 32, test_share)
    return [known[tuple(image[0, 0].tolist())] for image in data.images]


@pytest.mark.parametrize(
    ("folders", "train", "val", "test"),
    [
        ("train test", "train", "", "test"),
        ("train val", "train", "", "val"),
        ("train valid test", "train", "valid", "test"),
        ("training testing", "training", "", "testing"),
        ("Train Test", "Train", "", "Test"),
        ("TRAIN VAL TEST", "TRAIN", "VAL", "TEST"),
        ("training_set test_set", "training_set", "", "test_set"),
        ("seg_train/seg_train seg_test/seg_test", "seg_train/seg_train", "", "seg_test/seg_test"),
        ("train/images eval/images", "train/images", "", "eval/images"),
        ("train2017 val2017", "train2017", "", "val2017"),
        ("a/b/train a/b/validation a/b/test", "a/b/train", "a/b/validation", "a/b/test"),
    ],
)
def test_the_names_of_splits_that_people_use(make, folders, train, val, test):
    names = in_classes(*folders.split())
    root = make([*names, "README.md"])
    for split, folder in (("train", train), ("val", val), ("test", test)):
        expected = in_classes(folder) if folder else []
        assert sources.count("folder", root, split) == len(expected)
        if folder:
            assert split_names(root, names, split) == expected
    found = sources.find("folder", root)
    assert found.classes == CLASSES
    assert found.notes[0].startswith(f"{root}: training images in {train}/, ")
    assert f"test images in {test}/" in found.notes[0]
    assert (f"held-out validation images in {val}/" in found.notes[0]) == bool(val)
    assert found.notes[1:] == ("skipped files that are not images (1): README.md",)


def test_a_class_may_have_the_name_of_a_split(make):
    names = in_classes("train", "test", classes=("bus", "test", "train"))
    root = make(names)
    assert sources.class_names("folder", root) == ("bus", "test", "train")
    assert split_names(root, names, "train") == names[:9]
    assert sources.class_names("folder", as_directory(in_classes("", classes=("bus", "train")), root.parent / "x"), 0.5)


def test_a_class_may_have_the_name_of_an_image(make):
    names = in_classes("train", "test", classes=("a.jpg", "b.png"))
    assert sources.class_names("folder", make(names)) == ("a.jpg", "b.png")


def test_images_below_a_class_folder_belong_to_the_class(make):
    names = [f"{s}/{c}/{f}/0.png" for s in ("train", "test") for c in CLASSES for f in ("images", "more/deep", "x.jpg")]
    root = make(names)
    assert sources.count("folder", root, "train") == 9
    assert sorted(split_names(root, names, "train")) == sorted(names[:9])
    (note,) = sources.find("folder", root).notes[1:]
    assert note == (
        "images in the folders of a class belong to the class: train/cat/images/, train/cat/more/, train/cat/x.jpg/ "
        "and 15 more"
    )


def test_everything_that_is_skipped_is_counted_and_named(make):
    names = in_classes("train", "test")
    skipped = ["labels.csv", "train/cat/notes.txt", "train/loose.png", "extra/cat/0.png", "test/owl/@eaDir/0.png/S.jpg"]
    skipped += [".DS_Store", "train/cat/.ipynb_checkpoints/0-checkpoint.png", "__MACOSX/train/cat/._0.png"]
    root = make([*names, *skipped])
    assert [sources.count("folder", root, split) for split in ("train", "test")] == [9, 9]
    assert sources.find("folder", root).notes[1:] == (
        "skipped images outside of the class folders (2): extra/cat/0.png, train/loose.png",
        "skipped files that are not images (2): labels.csv, train/cat/notes.txt",
        "skipped hidden files and folders (4): .DS_Store, __MACOSX, test/owl/@eaDir and 1 more",
    )


def test_every_format_of_pillow_is_read(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    suffixes = ("png", "jpg", "JPEG", "webp", "bmp", "gif", "ppm", "tif", "tiff", "jp2", "tga", "pgm", "jfif")
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for suffix in suffixes:
                Image.fromarray(pixels).save(folder / f"0.{suffix}")
    assert len(sources.load("folder", tmp_path / "data", "train")) == 2 * len(suffixes)
    assert len(sources.find("folder", tmp_path / "data").notes) == 1


def test_links_to_splits_and_classes_are_followed_but_not_in_circles(tmp_path):
    names = in_classes("pool/a", "pool/b")
    as_directory(names, tmp_path)
    root = tmp_path / "data"
    (root / "test").mkdir(parents=True)
    (root / "train").symlink_to(tmp_path / "pool/a")
    for name in CLASSES:
        (root / "test" / name).symlink_to(f"../../pool/b/{name}")
    (tmp_path / "pool/a/cat/up").symlink_to(root)
    assert split_names(root, names, "train") == names[:9]
    assert split_names(root, names, "test") == names[9:]
    assert "skipped files that are not images (1): train/cat/up" in sources.find("folder", root).notes


def test_links_in_a_zip_are_followed(tmp_path):
    names = in_classes("pool", "test")
    root = as_zip(names, tmp_path / "data")
    with zipfile.ZipFile(root, "a") as archive:
        for link, target in (("train/cat", "../pool/cat"), ("train/dog/", "../pool/dog"), ("train/owl", "../pool/owl")):
            info = zipfile.ZipInfo(link.rstrip("/"))
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    assert split_names(root, names, "train") == names[:9]
    assert "skipped images outside of the class folders (9): pool/cat/0.png" in sources.find("folder", root).notes[1]


def test_a_zip_from_windows_has_backslashes(tmp_path):
    names = in_classes("train", "test")
    root = tmp_path / "data.zip"
    with zipfile.ZipFile(root, "w") as archive:
        for number, name in enumerate(names):
            info = zipfile.ZipInfo()
            info.filename = name.replace("/", "\\")
            archive.writestr(info, image_bytes(number))
    assert split_names(root, names, "test") == names[9:]


def test_macos_writes_accents_as_separate_characters(make):
    names = [
        *in_classes("train", classes=("caf\u00e9", "\u732b")),
        *in_classes("test", classes=("cafe\u0301", "\u732b")),
    ]
    root = make(names)
    assert sources.class_names("folder", root) == ("café", "猫")
    assert split_names(root, names, "test") == names[6:]
    assert unicodedata.is_normalized("NFC", sources.class_names("folder", root)[0])


@pytest.mark.parametrize(
    ("classes", "order"),
    [
        ("0 1 10 11 2 9", "0 1 2 9 10 11"),
        ("-1 0.5 10 2", "-1 0.5 2 10"),
        ("01 1 10 2", "01 1 2 10"),
        ("10 2 two", "10 2 two"),
        ("n10 n2", "n10 n2"),
    ],
)
def test_class_names_that_are_all_numbers_are_in_the_order_of_the_numbers(make, classes, order):
    names = in_classes("train", "test", classes=classes.split(), each=1)
    root = make(names)
    assert " ".join(sources.class_names("folder", root)) == order
    assert split_names(root, names, "test") == [f"test/{name}/0.png" for name in order.split()]


# ------------------------------------------------------------------------------------------------------- no test images


@pytest.mark.parametrize("top", ["", "photos/all", "train"])
def test_classes_without_a_split_are_split_by_test_share(make, top):
    names = in_classes(top, each=10)
    root = make([*names, "cover.jpg"])
    parts = [split_names(root, names, split, 0.2) for split in ("train", "test")]
    assert [len(part) for part in parts] == [24, 6]
    assert sorted(parts[0] + parts[1]) == sorted(names)
    assert [sum(f"{c}/" in name for name in parts[1]) for c in CLASSES] == [2, 2, 2]
    assert parts == [split_names(root, names, split, 0.2) for split in ("train", "test")]
    assert sources.class_names("folder", root, 0.2) == CLASSES
    assert [sources.count("folder", root, split, 0.2) for split in ("train", "test")] == [24, 6]
    note, skipped = sources.find("folder", root, 0.2).notes
    assert skipped == "skipped images outside of the class folders (1): cover.jpg"
    where = f"{top}/" if top else "its folders"
    assert note == (
        f"{root}: training images in {where}, test images: 20% of each class, chosen at random, but the same in every "
        "run"
    )


def test_every_class_keeps_an_image_in_both_parts(make):
    root = make([*in_classes("", each=2), *in_classes("", classes=("yak",), each=40)])
    for share in (0.01, 0.99):
        train, test = (sources.load("folder", root, split, 32, share).labels.unique() for split in ("train", "test"))
        assert train.tolist() == test.tolist() == [0, 1, 2, 3]


def test_test_share_leaves_validation_images_held_out(make):
    names = in_classes("train", "val", each=5)
    root = make(names)
    assert [sources.count("folder", root, split, 0.2) for split in ("train", "val", "test")] == [12, 15, 3]
    assert [sources.count("folder", root, split) for split in ("train", "val", "test")] == [15, 0, 15]


# --------------------------------------------------------------------------------------------------------- not readable


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (in_classes(""), r"no test images; found the classes cat, dog, owl: pass `test_share` 0\.2"),
        (
            in_classes("x/train"),
            r"in x/train/: no test images; found the classes cat, dog, owl: pass `test_share` 0\.2",
        ),
        ([*in_classes("train"), "test/1.png"], r"in train/: no test images \(not divided into these classes: test/\)"),
        (
            [*in_classes("train"), "val/images/1.png", "test/images/2.png"],  # as in tiny-imagenet-200
            r"in train/: no test images \(not divided into these classes: test/, val/\); found the classes cat, dog",
        ),
        (["a/train.csv", "b.zip"], r"no images that can be read; found a/train\.csv, b\.zip; .*b\.zip may be"),
        (["empty/"], r"no images that can be read; found no files"),
        (["1.png", "2.png"], r"no folders of classes; found 2 images; images must be in train/<class>/"),
        (["train/1.png", "test/2.png"], r"no folders of classes; found test/ \(1 image\), train/ \(1 image\)"),
        (in_classes("val", "test"), r"no folders of classes; found test/ \(9 images\), val/ \(9 images\)"),
        (in_classes("cat", "dog", classes=("train", "test")), r"the splits are inside of the classes; found cat/test/"),
        (
            in_classes("train", "training", "test"),
            "several train folders: train/ and training/; rename or remove all but",
        ),
        (in_classes("train", "test", "old/train", "old/test")[::-1], None),
        (in_classes("v1/train", "v1/test", "v2/train", "v2/test"), "several data sets: 'v1', 'v2'; choose one of them"),
        (
            [*in_classes("train"), *in_classes("val", classes=("cat", "dog", "fox"))],
            r"train and val in `root` .* have different classes \(only in train: owl; only in val: fox\)",
        ),
        (
            [*in_classes("train", "test"), "test/yak/1.heic", "train/yak/", "train/yak/a.txt"],
            r"no images in train/yak, test/yak of `root` .*, where there are train/yak/a\.txt, test/yak/1\.heic; fill",
        ),
    ],
)
def test_what_is_not_understood_is_named(make, names, message):
    root = make(names)
    if message is None:
        assert sources.count("folder", root, "train") == 9
        return
    with pytest.raises(UserError, match=message):
        sources.load("folder", root, "train")


def test_a_class_with_one_image_cannot_be_split(make):
    root = make([*in_classes(""), "yak/0.png", "gnu/0.png"])
    with pytest.raises(
        UserError, match=r"`test_share` 0\.2 needs at least 2 images of each class; .* has 1 of gnu, yak"
    ):
        sources.find("folder", root, 0.2)


def test_test_share_contradicts_test_images_and_needs_a_folder(make):
    with pytest.raises(UserError, match=r"`test_share` 0\.2: `root` .* has test images in test/"):
        sources.find("folder", make(in_classes("train", "test")), 0.2)
    with pytest.raises(UserError, match=r"`test_share` 0\.2 is an option of `source` folder; received `source` digits"):
        sources.find("digits", None, 0.2)
    with pytest.raises(UserError, match="`test_share` must be above 0 and below 1; received 1"):
        CIFAR10DataModule(source="folder", test_share=1.0)


def test_a_class_folder_whose_name_is_not_utf8_is_refused_by_name_and_such_a_file_is_read(tmp_path):
    names = [*in_classes("train", "test"), os.fsdecode(b"train/cat/gr\xfcn.png"), os.fsdecode(b"train/cat/\xfc.txt")]
    root = as_directory(names, tmp_path / "files")
    data = CIFAR10DataModule(source="folder", root=root, batch_size=3)
    data.setup("fit")
    assert len(data.train_images) == 10
    assert any("\\udcfc.txt" in note for note in data.notes)
    named = as_directory(in_classes("train", "test", classes=("cat", os.fsdecode(b"k\xe4fer"))), tmp_path / "classes")
    with pytest.raises(UserError, match=r"the name of the class folder 'k\\udce4fer' is not UTF-8; rename it"):
        CIFAR10DataModule(source="folder", root=named, batch_size=3).setup("fit")
