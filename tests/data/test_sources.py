"""Tests of reading images, and of every way in which it can fail."""

import os
import pickle
import shutil
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from customresnet import CIFAR10DataModule
from customresnet.data import sources
from customresnet.data.sources import cifar, image_files
from customresnet.runtime.errors import UserError
from tests.conftest import make_tree


def zipped(tree: Path, path: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*.*")):
            archive.write(file, f"{prefix}{file.relative_to(tree)}")
    return path


def test_directory_zip_and_zip_with_a_top_folder_give_the_same_images(tmp_path):
    tree = make_tree(tmp_path / "tree")
    roots = [tree, zipped(tree, tmp_path / "a.zip"), zipped(tree, tmp_path / "b.zip", "repository-main/")]
    read = [sources.load("folder", root, "train") for root in roots]
    expected = np.stack(
        [np.asarray(Image.open(tree / f"train/{c}/{n}.png")) for c in ("cat", "dog", "owl") for n in range(4)]
    )
    for data in read:
        assert np.array_equal(data.images.numpy(), expected)
        assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
        assert data.classes == ("cat", "dog", "owl")
    assert {sources.class_names("folder", root) for root in roots} == {("cat", "dog", "owl")}


def test_grey_images_and_jpegs_are_read_as_rgb(tmp_path):
    tree = make_tree(tmp_path / "tree")
    Image.new("L", (32, 32), 77).save(tree / "test/cat/0.png")
    Image.new("RGB", (32, 32), (200, 100, 50)).save(tree / "test/cat/1.jpeg")
    images = sources.load("folder", tree, "test").images
    assert images[0].unique().tolist() == [77]
    assert images[1][0, 0].tolist() == pytest.approx([200, 100, 50], abs=3)


def test_images_are_resized_only_on_request(tmp_path):
    tree = make_tree(tmp_path / "tree", size=48)
    with pytest.raises(UserError, match=r"train/cat/0\.png is 48x48 pixels, not 32x32; pass `image_size` 32"):
        sources.load("folder", tree, "train")
    assert sources.load("folder", tree, "train", image_size=40).images.shape == (12, 40, 40, 3)
    assert sources.load("digits", None, "test", image_size=40).images.shape == (360, 40, 40, 3)


def test_an_oblong_image_is_centre_cropped():
    wide = Image.new("RGB", (128, 64), (255, 0, 0))
    wide.paste((0, 0, 255), (32, 0, 96, 64))
    square = np.asarray(image_files.fit_to_square(wide, 32))
    assert square.shape == (32, 32, 3)
    assert (square[:, 2:-2] == (0, 0, 255)).all()  # the outermost columns blend with the cropped ones


def test_digits_have_a_fixed_stratified_split():
    train, test = sources.load("digits", None, "train"), sources.load("digits", None, "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (32, 32, 3)
    assert torch.bincount(test.labels).min() >= 34
    assert (train.images.min(), train.images.max()) == (0, 255)
    seen = {image.numpy().tobytes() for image in train.images}
    assert sum(image.numpy().tobytes() in seen for image in test.images) == 0


def empty_class(tree: Path) -> None:
    for file in (tree / "test/dog").iterdir():
        file.unlink()


def one_class(tree: Path) -> None:
    for split in ("train", "test"):
        for name in ("dog", "owl"):
            shutil.rmtree(tree / split / name)


def broken_image(tree: Path) -> None:
    (tree / "train/dog/2.png").write_bytes((tree / "train/dog/2.png").read_bytes()[:100])


def no_image(tree: Path) -> None:
    (tree / "train/dog/2.png").write_text("not an image")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_class, "no images in test/dog of `root`"),
        (lambda tree: shutil.rmtree(tree / "test/owl"), r"different classes \(only in train: owl\)"),
        (broken_image, r"cannot read the image .*train/dog/2\.png"),
        (no_image, r"cannot read the image .*train/dog/2\.png"),
        (lambda tree: shutil.rmtree(tree / "test"), "in train/: no test images; found the classes cat, dog, owl"),
        (one_class, "only the class cat"),
        (shutil.rmtree, "`root` .* does not exist"),
    ],
)
def test_an_invalid_folder_raises(tmp_path, damage, message):
    tree = make_tree(tmp_path / "tree")
    damage(tree)
    with pytest.raises(UserError, match=message):
        sources.load("folder", tree, "train")


def test_two_data_sets_in_one_folder_are_not_merged(tmp_path):
    for name in ("v1", "v2"):
        make_tree(tmp_path / "both" / name)
    with pytest.raises(UserError, match="several data sets: 'v1', 'v2'; choose one"):
        sources.load("folder", tmp_path / "both", "train")
    assert len(sources.load("folder", tmp_path / "both/v1", "train")) == 12


def test_other_files_are_ignored(tmp_path):
    tree = make_tree(tmp_path / "tree")
    (tree / "train/labels.csv").write_text("x")
    (tree / "README.md").write_text("x")
    (tree / "train/cat/notes.txt").write_text("x")
    assert sources.load("folder", tree, "train").classes == ("cat", "dog", "owl")


def test_a_damaged_zip_raises(tmp_path):
    (tmp_path / "x.zip").write_text("not a zip")
    with pytest.raises(UserError, match=r"`root` .*x\.zip is neither a directory nor a readable \.zip"):
        sources.load("folder", tmp_path / "x.zip", "train")


def test_an_empty_class_folder_in_a_zip_raises(tmp_path):
    path = zipped(make_tree(tmp_path / "tree"), tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for split in ("train", "test"):
            archive.mkdir(f"{split}/yak")
    with pytest.raises(UserError, match="no images in train/yak, test/yak"):
        sources.load("folder", path, "train")


def test_folder_without_a_root_raises():
    with pytest.raises(UserError, match="`source` folder needs `root`"):
        sources.load("folder", None, "train")


# Small CIFAR archives. torchvision reads them because the tests patch in their checksums.


def make_archive(
    kind: type[torchvision.datasets.CIFAR10], labels: str, names: str, classes: tuple[str, ...], tmp_path, monkeypatch
) -> Path:
    """A folder that holds an archive with 2 images in each file, which torchvision accepts during this test."""
    folder = tmp_path / "made" / kind.base_folder
    folder.mkdir(parents=True)
    train, test = ([name for name, _ in files] for files in (kind.train_list, kind.test_list))
    for number, name in enumerate(train + test):
        content = {"data": np.full((2, 3072), number, np.uint8), labels: [number, 9]}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({names: list(classes)}))
    root = tmp_path / "data"
    root.mkdir()
    with tarfile.open(root / kind.filename, "w:gz") as tar:
        tar.add(folder, kind.base_folder)
    md5 = torchvision.datasets.utils.calculate_md5
    monkeypatch.setattr(kind, "tgz_md5", md5(str(root / kind.filename)))
    monkeypatch.setattr(kind, "train_list", [[n, md5(str(folder / n))] for n in train])
    monkeypatch.setattr(kind, "test_list", [[n, md5(str(folder / n))] for n in test])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(str(folder / kind.meta["filename"]))})
    monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/cifar.tar.gz")  # nothing listens on this port
    return root


@pytest.fixture
def archive(tmp_path, monkeypatch) -> Path:
    kind, classes = torchvision.datasets.CIFAR10, cifar.CIFAR10_CLASSES
    return make_archive(kind, "labels", "label_names", classes, tmp_path, monkeypatch)


def test_cifar10_is_read_from_its_archive(archive):
    data = sources.load("cifar10", archive, "train")
    assert data.images.shape == (10, 32, 32, 3)
    assert data.images.dtype == torch.uint8
    assert data.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert data.classes[3] == "cat"
    assert data.images.is_contiguous()  # torchvision's array is not, and the batch backend needs it
    assert len(sources.load("cifar10", archive, "test")) == 2


def test_cifar100_is_read_from_its_archive(tmp_path, monkeypatch):
    kind, classes = torchvision.datasets.CIFAR100, cifar.CIFAR100_CLASSES
    root = make_archive(kind, "fine_labels", "fine_label_names", classes, tmp_path, monkeypatch)
    data = sources.load("cifar100", root, "train")
    assert data.images.shape == (2, 32, 32, 3)
    assert data.labels.tolist() == [0, 9]
    assert len(sources.load("cifar100", root, "test")) == 2
    # torchvision has the names only in the archive; the labels number them in alphabetical order
    assert len(set(classes)) == 100
    assert list(classes) == sorted(classes)
    assert data.classes[9] == "bottle"
    (root / kind.filename).unlink()
    (root / kind.base_folder / "train").unlink()
    with pytest.raises(UserError, match=r"CIFAR-100 is not in `root` .* could not be downloaded"):
        sources.download("cifar100", root)


def test_a_failed_download_says_what_to_do_instead(archive):
    os.unlink(archive / torchvision.datasets.CIFAR10.filename)
    with pytest.raises(UserError, match=r"could not be downloaded.*`source` folder.*make demo"):
        sources.download("cifar10", archive)


def test_load_downloads_nothing(archive, monkeypatch):
    os.unlink(archive / torchvision.datasets.CIFAR10.filename)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", pytest.fail)
    with pytest.raises(UserError, match=r"CIFAR-10 is not in `root` .*; call prepare_data\(\) first"):
        sources.load("cifar10", archive, "train")


@pytest.mark.parametrize("source", ["digits", "folder"])
def test_sources_without_an_archive_download_nothing(source):
    sources.download(source, None)


def test_processes_that_start_together_download_once(archive, tmp_path, monkeypatch):
    """The processes are threads here, which a file lock keeps apart as well."""
    filename = torchvision.datasets.CIFAR10.filename
    shutil.move(archive / filename, tmp_path / filename)
    downloads = []

    def download_and_extract(url: str, root: str, **_: str) -> None:
        downloads.append(url)
        time.sleep(0.2)
        shutil.unpack_archive(tmp_path / filename, root)

    monkeypatch.setattr(torchvision.datasets.cifar, "download_and_extract_archive", download_and_extract)
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(sources.download, "cifar10", archive) for _ in range(4)]:
            done.result()
    assert len(downloads) == 1
    assert len(sources.load("cifar10", archive, "train")) == 10


def test_prepare_data_downloads_and_setup_reads(archive, tmp_path):
    module = CIFAR10DataModule(root=archive, batch_size=4)
    module.prepare_data()
    module.setup()
    assert (len(module.train_images), len(module.test_images)) == (10, 2)
    with pytest.raises(UserError, match=r"CIFAR-10 is not in `root` .*; call prepare_data\(\) first"):
        CIFAR10DataModule(root=tmp_path / "elsewhere").setup("fit")


def test_an_archive_that_is_there_needs_no_prepare_data(archive):
    module = CIFAR10DataModule(root=archive, batch_size=4)
    module.setup("fit")
    assert len(module.train_images) == 10


def test_an_extracted_archive_needs_no_write_access(archive, monkeypatch):
    sources.load("cifar10", archive, "test")
    monkeypatch.setattr(cifar, "FileLock", pytest.fail)
    sources.download("cifar10", archive)


def test_a_truncated_archive_is_reported_and_can_be_replaced(archive):
    path = archive / torchvision.datasets.CIFAR10.filename
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz is damaged and could not be replaced"):
        sources.load("cifar10", archive, "train")
    path.write_bytes(whole)
    assert len(sources.load("cifar10", archive, "train")) == 10


def test_a_half_extracted_archive_is_extracted_again(archive):
    sources.load("cifar10", archive, "train")
    (archive / torchvision.datasets.CIFAR10.base_folder / "data_batch_3").write_bytes(b"half")
    assert len(sources.load("cifar10", archive, "train")) == 10
