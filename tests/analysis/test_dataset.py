"""The `dataset` command: its numbers against independent arithmetic, and its page and messages."""

import csv
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from customresnet import Augmentation, CIFAR10DataModule
from customresnet.analysis.dataset.augmentations import augmentation_steps, augmentations
from customresnet.analysis.dataset.samples import class_images, mean_images, sample_predictions
from customresnet.analysis.dataset.statistics import class_counts, pixel_statistics
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.albumentations_backend import AlbumentationsBackend
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD
from customresnet.runtime.errors import UserError
from tests.conftest import make_tree, read_json

ROOT = os.environ.get("CIFAR10_ROOT")
SECTIONS = ["classes", "pixels", "samples", "augmentation", "predictions", "duplicates"]


@pytest.fixture(scope="module")
def digits() -> CIFAR10DataModule:
    data = CIFAR10DataModule(source="digits", seed=3)
    data.setup("fit")
    return data


def tree(root: Path, **options) -> CIFAR10DataModule:
    data = CIFAR10DataModule(source="folder", root=root, batch_size=2, seed=0, **options)
    data.setup("fit")
    return data


def test_counts_equal_those_of_the_files(tmp_path):
    root = make_tree(tmp_path / "tree", each=3)
    (root / "train/dog/0.png").unlink()
    (root / "test/owl/0.png").unlink()
    (root / "test/owl/1.png").unlink()
    section = class_counts(tree(root))
    assert section.table == [
        {"class": "cat", "train": 3, "test": 3},
        {"class": "dog", "train": 2, "test": 3},
        {"class": "owl", "train": 3, "test": 1},
    ]
    assert section.text == ["8 training images, 7 test images, 3 classes. All are 32x32 pixels, RGB."]
    resized = class_counts(tree(root, image_size=40)).text[0]
    assert "All are 40x40 pixels" in resized
    assert "Other sizes were resized to --data.image_size 40 and center-cropped." in resized


def test_mean_and_std_equal_numpys(tmp_path):
    data = tree(make_tree(tmp_path / "tree"), mean=CIFAR10_MEAN, std=CIFAR10_STD)
    pixels = data.train_images.images.numpy().reshape(-1, 3) / 255
    section = pixel_statistics(data)
    assert section.numbers["measured"]["mean"] == pytest.approx(pixels.mean(0), rel=1e-12)
    assert section.numbers["measured"]["std"] == pytest.approx(pixels.std(0), rel=1e-12)
    assert section.numbers["used"] == {"mean": [0.4914, 0.4822, 0.4465], "std": [0.2470, 0.2435, 0.2616]}
    apart = np.abs(np.concatenate([pixels.mean(0) - data.mean, pixels.std(0) - data.std]))
    assert section.numbers["largest_difference"] == pytest.approx(apart.max())
    assert section.table[1]["mean"] == f"{pixels[:, 1].mean():.6f}"
    assert section.table[2]["std, apart"] == f"{apart[5]:.6f}"


def test_the_suggested_constants_are_accepted_and_match(run, tmp_path):
    make_tree(tmp_path / "tree")
    words = ["dataset", "--data.source", "folder", "--data.root", "tree", "--data.batch_size", "2", "--output", "seen"]
    assert run(*words, "--data.mean", "[0.5, 0.5, 0.5]", "--data.std", "[0.2, 0.2, 0.2]").code == 0
    (sentence,) = re.findall(r"<p>(Mean and standard deviation.*?)</p>", Path("seen/index.html").read_text(), re.S)
    flags = re.findall(r"(--data\.\w+) &#34;(.*?)&#34;", sentence)
    assert [flag for flag, _ in flags] == ["--data.mean", "--data.std"]
    assert run(*words, *(word for flag in flags for word in flag)).code == 0
    assert "those of the training images, rounded to four digits" in Path("seen/index.html").read_text()


def test_mean_images_equal_numpys_and_a_class_may_be_empty(digits):
    train = digits.train_images
    means = mean_images(train)
    for label in range(10):
        expected = train.images.numpy()[train.labels.numpy() == label].astype(np.float64).mean(0)
        assert means[label] == pytest.approx(expected, abs=1e-9)
    with_empty = LabelledImages(train.images[:5], torch.tensor([0, 0, 2, 2, 2]), ("a", "none", "c"))
    assert np.isnan(mean_images(with_empty)[1]).all()
    chosen = class_images(with_empty, 4).numbers["training_images"]
    assert {name: sorted(indices) for name, indices in chosen.items()} == {"a": [0, 1], "none": [], "c": [2, 3, 4]}


def test_samples_belong_to_their_class_and_depend_on_the_seed(digits):
    train = digits.train_images
    chosen = class_images(train, 10, seed=1).numbers["training_images"]
    for label, indices in enumerate(chosen.values()):
        assert len(set(indices)) == 10
        assert set(train.labels[indices].tolist()) == {label}
    assert chosen == class_images(train, 10, seed=1).numbers["training_images"]
    assert chosen != class_images(train, 10, seed=2).numbers["training_images"]


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("augment", [Augmentation(), Augmentation(pad=2, flip=0, cutout=5), Augmentation(0, 0, 0)])
def test_the_last_step_equals_the_networks_input(augment, seed):
    data = CIFAR10DataModule(source="digits", augment=augment, seed=0)
    data.setup("test")
    backend, image = data.transforms(augment=True), data.test_images.images[5]
    assert isinstance(backend, AlbumentationsBackend)
    steps = augmentation_steps(backend, image.numpy(), seed)
    assert torch.equal(torch.from_numpy(steps[-1][1]).permute(2, 0, 1), backend(image[None], seed)[0])
    assert len(steps) - 1 == str(backend).count("->") + 1  # one for each step of the policy


def test_each_step_does_what_its_name_says(digits):
    backend, image = digits.transforms(augment=True), digits.train_images.images[0].numpy()
    assert isinstance(backend, AlbumentationsBackend)
    for seed in range(6):
        (names, pictures) = zip(*augmentation_steps(backend, image, seed), strict=True)
        original, padded, cropped, flipped, normalized, cut = pictures
        assert names[3] in ("flipped", "not flipped")
        assert np.array_equal(padded, np.pad(original, ((4, 4), (4, 4), (0, 0)), mode="reflect"))
        assert any(np.array_equal(cropped, padded[y : y + 32, x : x + 32]) for y in range(9) for x in range(9))
        assert np.array_equal(flipped, cropped[:, ::-1] if names[3] == "flipped" else cropped)
        assert normalized == pytest.approx((flipped / 255 - digits.mean) / digits.std, abs=1e-5)
        assert int((cut != normalized).any(2).sum()) <= 64
        assert (cut == 0).all(2).sum() >= 64
    assert "3. flipped" in [text.get_text() for text in list(augmentations(digits).figures.values())[1].axes[0].texts]


def test_predictions_equal_the_networks(small_run, digits):
    from customresnet import ImageClassifier

    checkpoint = small_run / "checkpoints/last.ckpt"
    section = sample_predictions(digits.test_images, checkpoint, 12, seed=1)
    indices = [row["test image"] for row in section.table]
    assert len(set(indices)) == 12
    model = ImageClassifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    with torch.no_grad():
        inputs = digits.transforms(augment=False)(digits.test_images.images[indices], 0)
        expected = model(inputs).softmax(1)
    assert [int(row["predicted"]) for row in section.table] == expected.argmax(1).tolist()
    assert [row["confidence"] for row in section.table] == pytest.approx(
        expected.amax(1).tolist(), abs=0.02
    )  # may be bf16
    assert [int(row["class"]) for row in section.table] == digits.test_images.labels[indices].tolist()
    assert section.numbers["right"] == sum(row["class"] == row["predicted"] for row in section.table)


def test_a_checkpoint_of_other_classes_or_another_size_is_refused(small_run, digits):
    test, checkpoint = digits.test_images, small_run / "checkpoints/last.ckpt"
    with pytest.raises(UserError, match=r"`ckpt_path` .* was trained on the classes 0, 1"):
        sample_predictions(LabelledImages(test.images, test.labels, tuple("abcdefghij")), checkpoint)
    with pytest.raises(UserError, match=r"images of 32 pixels; received 40 pixels: set `image_size` to 32"):
        sample_predictions(LabelledImages(torch.zeros(1, 40, 40, 3).byte(), test.labels[:1], test.classes), checkpoint)


# ------------------------------------------------------------------------------------------------------------ the page


def test_the_page_is_self_contained_with_its_files_beside_it(run, small_run):
    outcome = run("dataset", "--data.source", "digits", "--ckpt_path", str(small_run))
    assert outcome.code == 0, outcome.err
    folder = Path("dataset/digits")
    page = (folder / "index.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert "Not shown" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page.replace("xlink:", ""))
    assert not re.search(r"@import|url\((?!#|&quot;#)", page)
    for name in SECTIONS:
        assert read_json(folder / f"{name}.json"), name
        assert list(folder.glob(f"{name}*.png")), name
    near = read_json(folder / "duplicates.json")["near"]
    rows = list(csv.DictReader((folder / "duplicates.csv").read_text().splitlines()))
    assert len(rows) == near > 36
    assert "simple shapes, such as digits, resemble each other" in page
    lines = outcome.out.splitlines()
    assert lines[0].startswith("1,437 training images, 360 test images, 10 classes.")
    assert lines[1].startswith("mean of the training images [0.3093")
    assert lines[2].endswith("used: [0.247000, 0.243500, 0.261600]")
    assert f"0 exact, {near} near" in lines[3]
    assert lines[4:] == ["written: dataset/digits/index.html"]
    assert "\r" not in outcome.err  # no progress bar in a log file


def test_one_image_of_each_class_is_enough(run):
    make_tree(Path("tree"), each=1)
    outcome = run("dataset", "--data.source", "folder", "--data.root", "tree", "--data.batch_size", "1")
    assert outcome.code == 0, outcome.err
    page = Path("dataset/folder/index.html").read_text()
    assert "<title>Data set: tree</title>" in page
    assert "Not shown: no checkpoint was given" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", "0"], "--samples must be at least 1; received 0"),
        (["--augmented", "-1"], "--augmented must be at least 1; received -1"),
        (["--predictions", "0"], "--predictions must be at least 1; received 0"),
        (["--duplicate_threshold", "0"], "--duplicate_threshold must be above 0 and at most 1; received 0"),
        (["--output", "taken"], "cannot write to --output taken"),
        (["--ckpt_path", "nowhere"], "--ckpt_path nowhere: no such checkpoint"),
    ],
)
def test_a_mistake_is_one_line_before_images_are_read(run, monkeypatch, words, message):
    Path("taken").touch()
    monkeypatch.setattr(CIFAR10DataModule, "setup", lambda *_: pytest.fail("images were read"))
    outcome = run("dataset", "--data.source", "digits", *words)
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.real_data
@pytest.mark.skipif(not ROOT, reason="CIFAR10_ROOT names no folder or .zip of the images")
def test_constants_equal_those_of_the_real_images_to_four_digits():
    numbers = pixel_statistics(tree(Path(ROOT))).numbers
    assert [round(value, 4) for value in numbers["measured"]["mean"]] == [0.4914, 0.4822, 0.4465]
    assert [round(value, 4) for value in numbers["measured"]["std"]] == [0.2470, 0.2435, 0.2616]
    assert numbers["largest_difference"] < 5e-5
