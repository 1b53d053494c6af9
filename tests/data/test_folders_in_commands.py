"""The commands on folders that people have: splits, constants and classes agree between all of them."""

import itertools
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from customresnet import CIFAR10DataModule, ImageClassifier
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD
from customresnet.runs.checkpoint import load_network
from tests.conftest import BOUNDS, make_tree, one_line, read_json

RUN = Path("lightning_logs/customresnet/version_0")
FOLDER = ["--data.source", "folder", "--data.root", "tree", "--data.batch_size", "8"]
FIT = ["fit", "--model.width", "4", "--trainer.max_epochs", "1", *FOLDER, *BOUNDS]


def test_validation_images_of_a_folder_are_held_out_and_test_images_used_once(run):
    make_tree(Path("tree/photos"), splits=("Train", "valid", "test"), each=6)
    outcome = run(*FIT)
    assert outcome.code == 0, outcome.err
    assert "18 training, 18 validation and 18 test images, 3 classes" in outcome.out
    assert (
        "tree: training images in photos/Train/, held-out validation images in photos/valid/, test images in "
        "photos/test/\nnormalization: mean and std computed from the training images\n"
    ) in outcome.out
    result = read_json(RUN / "result.json")
    assert result["test/images"] == 18
    assert f"val loss {result['val/loss']:.4f}" in outcome.out
    assert (RUN / "checkpoints/best.ckpt").is_file()
    assert run("validate", "--ckpt_path", "last").code == 0
    assert read_json(RUN / "validate.json")["val/loss"] == pytest.approx(result["val/loss"], rel=1e-5)
    assert run("test", "--ckpt_path", "last").code == 0
    assert read_json(RUN / "test.json")["test/loss"] == pytest.approx(result["test/loss"], rel=1e-5)
    assert run("report", "--ckpt_path", "last", "--gallery.images", "0").code == 0
    facts = read_json(RUN / "report/overview.json")["facts"]
    assert facts["held out"] == "the validation images of the data set"
    one_line(run(*FIT, "--data.val_size", "6"), "--data.val_size 6: --data.root has 18 validation images of its own")


def test_a_share_of_the_images_is_tested_on_by_every_command(run):
    make_tree(Path("tree"), splits=("photos",), each=10)
    one_line(run(*FIT), "in photos/: no test images; found the classes cat, dog, owl: pass --data.test_share 0.2")
    one_line(run("dataset", *FOLDER), "pass --data.test_share 0.2")
    outcome = run(*FIT, "--data.test_share", "0.2", "--seed_everything", "1")
    assert outcome.code == 0, outcome.err
    assert "test images: 20% of each class, chosen at random, but the same in every run" in outcome.out
    result = read_json(RUN / "result.json")
    assert result["test/images"] == 6
    assert run("test", "--ckpt_path", "last").code == 0
    assert read_json(RUN / "test.json")["test/correct"] == result["test/correct"]
    outcome = run("schedule", *FOLDER, "--data.test_share", "0.2", "--trainer.max_epochs", "2")
    assert "6 steps, 3 per epoch" in outcome.out


def test_the_readmes_command_for_own_pictures_works_as_written(run):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"python -m customresnet (fit .*--data.root photos.*)", readme)
    for number, (split, name) in enumerate(itertools.product(("train", "val"), ("cat", "dog"))):
        folder = Path("photos") / split / name
        folder.mkdir(parents=True)
        for suffix in ("jpg", "png", "webp", "bmp"):
            for size in range(40, 46):
                Image.new("RGB", (size, 2 * size), (size, 60 * number, 9)).save(folder / f"{size}.{suffix}")
    small = ["--model.width", "4", "--trainer.max_epochs", "1", "--lr_find.steps", "20"]
    outcome = run(*command.split(), *small)
    assert outcome.code == 0, outcome.err
    assert "photos: training images in train/, test images in val/" in outcome.out
    assert read_json(RUN / "result.json")["test/images"] == 48


def test_a_batch_size_that_is_too_large_is_an_error_only_where_batches_are_made(run):
    make_tree(Path("tree"), each=3)
    large = [*FOLDER, "--data.batch_size", "512"]
    one_line(
        run(*FIT, "--data.batch_size", "512"), "--data.batch_size 512 is larger than the 9 training images; 1 works"
    )
    assert run("dataset", *large).code == 0


def test_a_checkpoint_from_before_keeps_its_constants_and_the_order_of_its_classes(run):
    """Older versions normalized folders with CIFAR-10's constants, and sorted names that are numbers as text."""
    make_tree(Path("tree"), classes=("2", "10"), each=6)
    assert run(*FIT).code == 0
    path = Path(shutil.copy(RUN / "checkpoints/last.ckpt", "old.ckpt"))
    checkpoint = torch.load(path, weights_only=True)
    assert checkpoint["preprocessing"]["classes"] == ("2", "10")
    assert checkpoint["preprocessing"]["mean"] != CIFAR10_MEAN
    checkpoint["preprocessing"].update(classes=("10", "2"), mean=CIFAR10_MEAN, std=CIFAR10_STD)
    checkpoint["state_dict"]["net.head.bias"] = torch.tensor([3.0, -3.0])  # all are of class 10
    del checkpoint["datamodule_hyper_parameters"]
    torch.save(checkpoint, path)

    network = load_network(checkpoint)
    pixels = torch.stack([torch.tensor(np.asarray(Image.open(f"tree/test/{c}/0.png"))) for c in ("10", "2")]) / 255
    images = (pixels - torch.tensor(CIFAR10_MEAN)) / torch.tensor(CIFAR10_STD)
    logits = network(images.permute(0, 3, 1, 2)).detach()
    for name in ("2", "10"):
        for file in Path(f"tree/test/{name}").glob("[1-5].png"):
            file.unlink()
    expected = float(torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1])))

    words = ["test", "--ckpt_path", "old.ckpt", *FOLDER, "--model.width", "4", "--trainer.precision", "32-true"]
    assert run(*words).code == 0
    assert read_json(Path("test.json"))["test/loss"] == pytest.approx(expected, rel=1e-4)
    one_line(run(*words, "--data.mean", "[0.5, 0.5, 0.5]"), "--data.mean: received [0.5, 0.5, 0.5]", "with [0.4914")

    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    new, loaded = ImageClassifier(width=4, num_classes=2), ImageClassifier.load_from_checkpoint(path, weights_only=True)
    for model, options in ((new, {"ckpt_path": path, "weights_only": True}), (loaded, {})):
        data = CIFAR10DataModule(source="folder", root="tree", batch_size=8)
        metrics = trainer.test(model, data, verbose=False, **options)[0]
        assert metrics["test/loss"] == pytest.approx(expected, rel=1e-4)
        assert (data.mean, data.test_images.classes) == (CIFAR10_MEAN, ("10", "2"))

    for split in ("train", "test"):
        Path(f"tree/{split}/10").rename(f"tree/{split}/11")
    one_line(run(*words), "the classes of --data.source folder: received ['2', '11']", "trained with ['10', '2']")
