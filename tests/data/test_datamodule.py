"""Batches of the data module: sharding, randomness, workers, partitions, resuming, and checks of the options."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader, DistributedSampler

from customresnet import Augmentation, CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.data import sources
from customresnet.data.batches import Batch, InMemoryDataset, SeededBatchSampler, check_batch_size
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.batch_backend import BatchBackend
from customresnet.data.transforms.policy import CIFAR10_MEAN, CIFAR10_STD, ColorJitter, ShiftScaleRotate
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.data.transforms.selection import select_backend
from customresnet.runtime.errors import UserError
from tests.conftest import make_tree


def digits(**options) -> CIFAR10DataModule:
    options = {"source": "digits", "batch_size": 256, "seed": 0, **options}
    module = CIFAR10DataModule(**options)
    module.setup("fit")
    return module


def tensors(batches: Iterable[Batch]) -> list[torch.Tensor]:
    """Images and labels of all batches, in turn."""
    return [tensor for batch in batches for tensor in batch]


def equal(first: Iterable[torch.Tensor], second: Iterable[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def epochs(module: CIFAR10DataModule, count: int = 2) -> list[list[torch.Tensor]]:
    """The training batches of the first epochs, requested as Lightning does."""
    loader, seen = module.train_dataloader(), []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        seen.append(tensors(loader))
    return seen


def served(loader: DataLoader) -> LabelledImages:
    """The images that a loader prepares."""
    assert isinstance(loader.dataset, InMemoryDataset)
    return loader.dataset.data


# ----------------------------------------------------------------------------------------------------- order and shards


def test_an_epoch_of_cifar10_has_98_steps_with_a_short_last_batch():
    sampler = SeededBatchSampler(50_000, 512, 0, shuffle=True)
    sizes = [len(batch.indices) for batch in sampler]
    assert (len(sampler), len(sizes), sizes[-1], sum(sizes)) == (98, 98, 336, 50_000)


@pytest.mark.parametrize(("size", "world_size"), [(10, 1), (10, 2), (11, 2), (7, 4)])
def test_processes_share_the_images_and_train_for_equally_many_steps(size, world_size):
    shards = [SeededBatchSampler(size, 2, 0, shuffle=True, rank=r, world_size=world_size) for r in range(world_size)]
    batches = [list(shard) for shard in shards]
    seen = [torch.cat([batch.indices for batch in shard]).tolist() for shard in batches]
    assert {len(shard) for shard in batches} == {len(shards[0])}
    assert {index for shard in seen for index in shard} == set(range(size))
    assert sum(map(len, seen)) - size < world_size
    shards = [SeededBatchSampler(size, 2, 0, shuffle=False, rank=r, world_size=world_size) for r in range(world_size)]
    evaluated = [index for shard in shards for batch in shard for index in batch.indices.tolist()]
    assert sorted(evaluated) == list(range(size))  # an evaluation counts no image twice
    assert [len(shard) for shard in shards] == [len(list(shard)) for shard in shards]


def test_lightning_does_not_shard_the_batches_again():
    """A Trainer with ``use_distributed_sampler``, its default, replaces every other kind of sampler."""
    module = digits()
    assert all(
        isinstance(loader.sampler, DistributedSampler)
        for loader in (module.train_dataloader(), module.test_dataloader())
    )


def test_every_epoch_shows_every_image_once_in_its_own_order():
    sampler = SeededBatchSampler(1000, 64, 5, shuffle=True)
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        orders.append(torch.cat([batch.indices for batch in sampler]).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1000))
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("engine", "num_workers"), [("albumentations", 0), ("batch", 0), ("albumentations", 2)])
def test_passes_of_a_plain_loop_are_epochs(engine, num_workers):
    loader = digits(train_size=600, engine=engine, num_workers=num_workers).train_dataloader()
    passes = [tensors(loader) for _ in range(2)]
    expected = epochs(digits(train_size=600, engine=engine))
    assert equal(passes[0], expected[0])
    assert equal(passes[1], expected[1])
    assert not torch.equal(passes[0][1], passes[1][1])


def test_a_pass_that_is_left_early_counts_as_an_epoch():
    module = digits()
    loader = module.train_dataloader()
    first, second = (next(iter(loader)) for _ in range(2))
    expected = epochs(module)
    assert equal(first, expected[0][:2])
    assert equal(second, expected[1][:2])


# ---------------------------------------------------------------------------------------------------------- randomness


def test_pixels_do_not_depend_on_workers_and_batches_differ():
    alone = epochs(digits())
    for workers in (1, 2):
        for own, others in zip(alone, epochs(digits(num_workers=workers)), strict=True):
            assert equal(own, others)
    batches = [tensor[:50] for epoch in alone for tensor in epoch[::2]]
    assert not any(torch.equal(a, b) for i, a in enumerate(batches) for b in batches[:i])


def test_images_of_a_batch_have_holes_in_different_places():
    module = digits(augment=Augmentation(pad=0, flip=0, cutout=8))
    images, _ = next(iter(module.train_dataloader()))
    holes = {tuple(torch.nonzero((image == 0).all(0))[0].tolist()) for image in images}
    assert len(holes) > 100


def test_with_the_batch_backend_an_image_does_not_depend_on_its_batch():
    def seen(epoch: int, **options) -> dict[bytes, torch.Tensor]:
        """Each prepared training image of an epoch, by its original pixels."""
        module = digits(engine="batch", **options)
        assert isinstance(module.transforms(augment=True), BatchBackend)
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)
        originals = [image for batch in loader.sampler for image in module.train_images.images[batch.indices]]
        loader.sampler.set_epoch(epoch)
        prepared = [image for images, _ in loader for image in images]
        return {original.numpy().tobytes(): image for original, image in zip(originals, prepared, strict=True)}

    whole, small, later, other = seen(1), seen(1, batch_size=50), seen(2), seen(1, seed=1)
    assert len(whole) == len(small) == 1437
    assert all(torch.equal(whole[key], small[key]) for key in whole)
    for changed in (later, other):
        assert sum(torch.equal(whole[key], changed[key]) for key in whole) < 20


# ------------------------------------------------------------------------------------------------------ with a Trainer


class RecordBatches(pl.LightningModule):
    """Record the labels of the training batches, and train nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.labels: list[torch.Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        self.labels.append(batch[1])

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def predict_step(self, images: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return images

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


def plain_trainer(tmp_path: Path, **options: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, enable_model_summary=False, **quiet, **options)


@pytest.mark.parametrize("options", [{}, {"num_workers": 2}])
def test_a_trainer_sets_the_epochs(tmp_path, options):
    model, module = RecordBatches(), digits(train_size=600, **options)
    plain_trainer(tmp_path, max_epochs=3).fit(model, datamodule=module)
    expected = [labels for epoch in epochs(digits(train_size=600), 3) for labels in epoch[1::2]]
    assert equal(model.labels, expected)


def test_after_fit_the_training_loader_starts_at_the_first_batch(tmp_path):
    model, module = RecordBatches(), digits()
    plain_trainer(tmp_path, max_epochs=1).fit(model, datamodule=module)
    assert equal(tensors(module.train_dataloader()), epochs(digits(), 1)[0])


def test_predict_gets_the_test_images_in_order_without_labels(tmp_path):
    model, module = RecordBatches(), digits()
    images: Any = plain_trainer(tmp_path).predict(model, datamodule=module)
    assert [len(batch) for batch in images] == [256, 104]
    assert equal(images, tensors(module.test_dataloader())[::2])


def test_a_run_on_the_cpu_pins_no_memory_even_if_there_is_a_gpu(monkeypatch):
    module = digits()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not any(loader.pin_memory for loader in (module.train_dataloader(), module.test_dataloader()))


@pytest.mark.parametrize(
    ("changed", "batch"),
    [
        ({}, True),
        ({"device": torch.device("cpu")}, False),
        ({"num_workers": 0}, True),
        ({"num_workers": 2}, False),
        ({"image_bytes": 251}, False),
        ({"augmentation": Augmentation(gray=0.1)}, False),
        ({"engine": "albumentations"}, False),
        ({"engine": "batch", "device": torch.device("cpu")}, True),
    ],
)
def test_auto_is_batch_on_a_gpu_with_enough_memory_unless_an_option_needs_albumentations(monkeypatch, changed, batch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 1000))
    options = {"engine": "auto", "augmentation": Augmentation(), "num_workers": "auto", "image_bytes": 249}
    backend = select_backend(**{**options, "device": torch.device("cuda:0"), **changed})
    assert (backend is BatchBackend) == batch


def test_the_device_decides_which_transforms_auto_uses(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 10**9))
    module = digits()
    assert isinstance(module.transforms(augment=True, device=torch.device("cuda:0")), BatchBackend)
    assert not isinstance(module.transforms(augment=True), BatchBackend)


# ------------------------------------------------------------------------------------------------- splits of the images


def test_test_images_are_served_in_order_without_randomness():
    module = digits()
    first, second = tensors(module.test_dataloader()), tensors(module.test_dataloader())
    assert torch.equal(torch.cat(first[1::2]), module.test_images.labels)
    assert equal(first, second)
    assert len(module.test_images) == 360


def test_the_length_of_a_dataset_is_the_number_of_images():
    module = digits(val_size=200)
    loaders: list[Any] = [module.train_dataloader(), module.val_dataloader(), module.test_dataloader()]
    assert [len(loader.dataset) for loader in loaders] == [1237, 200, 360]


def test_held_out_images_are_stratified_seeded_and_not_trained_on():
    module, again, other = digits(val_size=200), digits(val_size=200), digits(val_size=200, seed=1)
    held_out = [served(data.val_dataloader()) for data in (module, again, other)]
    labels = torch.cat([labels for _, labels in module.val_dataloader()])
    assert torch.bincount(labels).tolist() == pytest.approx([20] * 10, abs=1)
    assert len(module.train_images) == 1437 - 200
    whole = {image.numpy().tobytes() for image in digits().train_images.images}
    parts = [{image.numpy().tobytes() for image in part.images} for part in (module.train_images, held_out[0])]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == whole
    assert torch.equal(held_out[0].images, held_out[1].images)
    assert not torch.equal(held_out[0].images, held_out[2].images)


def test_train_size_is_stratified_seeded_and_excludes_held_out_images():
    module, again, other = (digits(train_size=300, val_size=200, seed=seed) for seed in (0, 0, 1))
    assert torch.bincount(module.train_images.labels).tolist() == pytest.approx([30] * 10, abs=2)
    assert torch.equal(module.train_images.images, again.train_images.images)
    assert not torch.equal(module.train_images.images, other.train_images.images)
    held_out = served(module.val_dataloader())
    parts = [{image.numpy().tobytes() for image in part.images} for part in (module.train_images, held_out)]
    assert len(parts[0]) == 300
    assert not parts[0] & parts[1]
    assert module.count_training_images() == 300
    assert len(digits(train_size=1437).train_images) == 1437


def test_without_held_out_images_the_test_images_are_evaluated():
    module = digits()
    assert served(module.val_dataloader()) is module.test_images


def folder(root: Path, **options) -> CIFAR10DataModule:
    return CIFAR10DataModule("folder", root, **{"batch_size": 4, "seed": 0, **options})


def test_validation_images_of_a_folder_are_held_out(tmp_path):
    tree = make_tree(tmp_path / "tree", splits=("train", "valid", "test"), each=5)
    module = folder(tree)
    assert module.count_training_images() == 15
    module.setup("fit")
    assert [len(part) for part in (module.train_images, served(module.val_dataloader()), module.test_images)] == [
        15
    ] * 3
    assert torch.equal(served(module.val_dataloader()).images, sources.load("folder", tree, "val").images)
    assert module.val_size == 15
    assert CIFAR10DataModule(**module.hparams).hparams == module.hparams  # holds what was given
    only_validated = folder(tree, train_size=6)
    only_validated.setup("validate")
    assert torch.equal(served(only_validated.val_dataloader()).images, served(module.val_dataloader()).images)
    with pytest.raises(UserError, match=r'call setup\("fit"\) first'):
        only_validated.train_dataloader()
    only_validated.setup("fit")
    assert len(only_validated.train_images) == only_validated.count_training_images() == 6
    with pytest.raises(UserError, match="`val_size` 6: `root` has 15 validation images of its own"):
        folder(tree, val_size=6).setup("fit")


def test_test_share_gives_each_seed_the_same_test_images(tmp_path):
    tree = make_tree(tmp_path / "tree", splits=("all",), each=10)
    first, second = (folder(tree, test_share=0.2, val_size=6, seed=seed) for seed in (0, 1))
    for module in (first, second):
        module.setup("fit")
        assert [len(part) for part in (module.train_images, served(module.val_dataloader()), module.test_images)] == [
            18,
            6,
            6,
        ]
        assert module.count_training_images() == 18
    assert torch.equal(first.test_images.images, second.test_images.images)
    assert not torch.equal(served(first.val_dataloader()).images, served(second.val_dataloader()).images)


@pytest.mark.parametrize(("options", "parts"), [({"val_size": 6}, 1), ({"train_size": 6}, 1), ({"val_size": 3}, 2)])
def test_a_class_with_one_image_cannot_be_split(tmp_path, options, parts):
    tree = make_tree(tmp_path / "tree", each=8)
    for number in range(parts, 8):
        (tree / f"train/owl/{number}.png").unlink()
    module = folder(tree, **options)
    if parts == 2:
        module.setup("fit")
        assert module.train_images.labels.bincount().min() >= 1
        return
    (option, size), *_ = options.items()
    message = f"`{option}` {size} needs at least 2 training images of each class; there is only 1 of owl"
    with pytest.raises(UserError, match=message):
        module.setup("fit")


@pytest.mark.parametrize(
    ("stage", "val_size", "has_training_images"),
    [(None, 0, True), ("fit", 0, True), ("validate", 200, True), ("validate", 0, False), ("test", 200, False)],
)
def test_setup_reads_what_a_stage_needs(stage, val_size, has_training_images):
    module = CIFAR10DataModule(source="digits", val_size=val_size)
    module.setup(stage)
    assert len(module.test_images) == 360
    if has_training_images:
        assert len(module.train_images) == 1437 - val_size
    else:
        with pytest.raises(UserError, match=r'call setup\("fit"\) first'):
            module.train_dataloader()


def test_images_that_have_not_been_read_raise():
    with pytest.raises(UserError, match=r"the test images have not been read; call setup\(\) first"):
        CIFAR10DataModule(source="digits").test_dataloader()


# -------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1; received 0"),
        ({"batch_size": 1438}, "`batch_size` 1438 is larger than the 1437 training images; 128 works"),
        ({"test_share": 0.2}, "`test_share` 0.2 is an option of `source` folder; received `source` digits"),
        ({"val_size": -1}, "`val_size` must be at least 0; received -1"),
        ({"val_size": 1437}, "`val_size` 1437 does not fit the 1437 training images"),
        ({"val_size": 5}, "choose from 10 to 1427, or 0"),
        ({"train_size": 5}, "`train_size` 5 does not fit the 1437 training images of 10 classes"),
        ({"train_size": 1300, "val_size": 200}, "choose from 10 to 1227, or 1237"),
        ({"num_workers": -1}, "`num_workers` must be at least 0, or auto; received -1"),
        ({"num_workers": 2, "engine": "batch"}, "`engine` batch does not use workers; received `num_workers` 2"),
        (
            {"engine": "batch", "augment": Augmentation(gray=0.1)},
            "`engine` batch does not support `augment.gray`; received 0.1",
        ),
        ({"std": (0.2, 0.0, 0.2)}, "`std` must be positive"),
        ({"seed": -1}, "`seed` must be at least 0; received -1"),
        ({"image_size": 16}, "`image_size` must be at least 32"),
        ({"augment": Augmentation(flip=2)}, "`augment.flip` must be from 0 to 1; received 2"),
        ({"augment": Augmentation(gray=float("nan"))}, "`augment.gray` must be from 0 to 1; received nan"),
        (
            {"augment": Augmentation(shift_scale_rotate=ShiftScaleRotate(p=1.5))},
            "`augment.shift_scale_rotate.p` must be from 0 to 1; received 1.5",
        ),
        (
            {"augment": Augmentation(shift_scale_rotate=ShiftScaleRotate(rotate=200))},
            "`augment.shift_scale_rotate.rotate` must be from 0 to 180 degrees; received 200",
        ),
        (
            {"augment": Augmentation(color_jitter=ColorJitter(hue=0.6))},
            "`augment.color_jitter.hue` must be from 0 to 0.5; received 0.6",
        ),
        ({"augment": Augmentation(pad=40)}, "`augment.pad` must be from 0 to 31 pixels; received 40"),
        ({"augment": Augmentation(cutout=33)}, "`augment.cutout` must be from 0 to 32 pixels; received 33"),
    ],
)
def test_an_invalid_option_raises(options, message):
    with pytest.raises(UserError, match=message):
        digits(**options)


@pytest.mark.parametrize("images", [1, 7, 8, 108, 5000])
def test_the_batch_size_that_an_error_suggests_works(images):
    with pytest.raises(UserError) as error:
        check_batch_size(images + 1, images)
    suggested = int(str(error.value).split()[-2])
    check_batch_size(suggested, images)


# -------------------------------------------------------------------------------------------------------- normalization


def test_the_constants_of_a_folder_are_those_of_its_training_images(tmp_path):
    tree = make_tree(tmp_path / "tree", each=6)
    for file in (tree / "test").rglob("*.png"):
        Image.new("RGB", (32, 32), "white").save(file)
    module = folder(tree, val_size=3)
    module.setup("fit")
    pixels = module.train_images.images.double() / 255
    assert module.mean == pytest.approx(pixels.mean((0, 1, 2)).tolist(), abs=5e-5)
    assert module.std == pytest.approx(pixels.std((0, 1, 2), correction=0).tolist(), abs=5e-5)
    assert "normalization: mean and std computed from the training images" in module.notes
    tested = folder(tree, val_size=3)
    tested.setup("test")
    assert (tested.mean, tested.std) == (module.mean, module.std)
    given = folder(tree, mean=(0.1, 0.2, 0.3))
    given.setup("fit")
    assert given.mean == (0.1, 0.2, 0.3)
    assert "normalization: std computed from the training images" in given.notes
    assert given.hparams["std"] == "auto"


def test_auto_computes_the_constants_of_any_source_and_a_constant_channel_is_allowed(tmp_path):
    module = digits(mean="auto")
    assert module.mean == pytest.approx([float(module.train_images.images.double().mean() / 255)] * 3, abs=5e-5)
    assert module.std == CIFAR10_STD
    assert digits().mean == CIFAR10_MEAN
    tree = make_tree(tmp_path / "tree")
    for file in tree.rglob("*.png"):
        Image.new("RGB", (32, 32), (0, 255, 9)).save(file)
    flat = folder(tree)
    flat.setup("fit")
    images, _ = next(iter(flat.test_dataloader()))
    assert images.isfinite().all()
    assert images.abs().max() < 0.1


def test_a_checkpoint_gives_constants_and_the_order_of_the_classes(tmp_path):
    tree = make_tree(tmp_path / "tree", classes=("2", "10"))
    module = folder(tree, std=(0.5, 0.5, 0.5))
    module.setup("fit")
    assert module.train_images.classes == ("2", "10")
    own, labels = module.mean, module.test_images.labels
    old = Preprocessing(("10", "2"), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 32, "folder")
    module.adopt(old)
    assert (module.mean, module.std) == (old.mean, (0.5, 0.5, 0.5))
    assert module.preprocessing.classes == old.classes
    assert torch.equal(module.test_images.labels, 1 - labels)
    module.setup("fit")
    assert module.mean == own


@pytest.mark.parametrize(("size", "pad", "hole"), [(32, 4, 8), (64, 8, 16), (48, 6, 12)])
def test_pad_and_cutout_scale_with_the_image_unless_given(size, pad, hole):
    for engine in ("albumentations", "batch"):
        module = digits(image_size=size, engine=engine, augment=Augmentation(flip=0), batch_size=64)
        assert (module.augment.pad, module.augment.cutout) == (pad, hole)
        images, _ = next(iter(module.train_dataloader()))
        assert (images == 0).all(1).sum((1, 2)).tolist() == [hole * hole] * 64
        assert f"Pad {pad} (to {size + 2 * pad}x" in str(module.transforms(augment=True))
        given = digits(image_size=size, engine=engine, augment=Augmentation(pad=2, cutout=3))
        assert "Pad 2" in str(given.transforms(augment=True))
        assert "Cutout 3x3" in str(given.transforms(augment=True))


def test_its_hyperparameters_are_plain_and_build_it_again(tmp_path):
    options = {"source": "digits", "batch_size": 64, "seed": 3, "augment": Augmentation(pad=2, flip=0.0, cutout=4)}
    data = CIFAR10DataModule(root=tmp_path, **options)
    trainer = Trainer(max_epochs=1, limit_train_batches=1, default_root_dir=str(tmp_path), enable_progress_bar=False)
    trainer.fit(ImageClassifier(width=4, lr_max=1e-3, lr_min=1e-4), datamodule=data)
    checkpoint = next(tmp_path.rglob("last.ckpt"))
    assert torch.load(checkpoint, weights_only=True)["datamodule_hyper_parameters"]["root"] == str(tmp_path)
    again = CIFAR10DataModule.load_from_checkpoint(checkpoint)
    assert again.hparams == data.hparams
    assert (again.augment, again.root, again.seed) == (data.augment, tmp_path, 3)
