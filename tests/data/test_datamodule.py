import pytest
import torch

from customresnet import Augmentation, CIFAR10DataModule
from customresnet.data.batches import SeededBatchSampler
from customresnet.data.transforms.policy import ColorJitter, ShiftScaleRotate
from customresnet.runtime.errors import UserError


def digits(**options) -> CIFAR10DataModule:
    options = {"source": "digits", "batch_size": 256, "seed": 0, **options}
    module = CIFAR10DataModule(**options)
    module.setup("fit")
    return module


def epochs(module: CIFAR10DataModule, count: int = 2) -> list[list[torch.Tensor]]:
    """All training batches (images and labels, flat) of the first epochs, as Lightning asks for them."""
    loader, seen = module.train_dataloader(), []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        seen.append([tensor for batch in loader for tensor in batch])
    return seen


def test_cifar10_has_98_steps_an_epoch_and_the_short_batch_is_kept():
    requests = SeededBatchSampler(50_000, 512, 0, shuffle=True)
    sizes = [len(r.indices) for r in requests]
    assert (len(requests), len(sizes), sizes[-1], sum(sizes)) == (98, 98, 336, 50_000)


@pytest.mark.parametrize(("size", "world_size"), [(10, 1), (10, 2), (11, 2), (7, 4)])
def test_processes_share_an_epoch_and_all_take_the_same_number_of_steps(size, world_size):
    shards = [SeededBatchSampler(size, 2, 0, shuffle=True, rank=r, world_size=world_size) for r in range(world_size)]
    seen = [torch.cat([request.indices for request in shard]).tolist() for shard in shards]
    assert {len(list(shard)) for shard in shards} == {len(shards[0])}
    assert {index for shard in seen for index in shard} == set(range(size))
    assert sum(map(len, seen)) - size < world_size
    rest = [SeededBatchSampler(size, 2, 0, shuffle=False, rank=r, world_size=world_size) for r in range(world_size)]
    evaluated = [i for shard in rest for request in shard for i in request.indices.tolist()]
    assert sorted(evaluated) == list(range(size))  # in evaluation none may count twice
    assert [len(shard) for shard in rest] == [len(list(shard)) for shard in rest]


def test_every_epoch_shows_every_image_once_in_an_order_of_its_own():
    requests = SeededBatchSampler(1000, 64, 5, shuffle=True)
    orders = []
    for epoch in range(2):
        requests.set_epoch(epoch)
        orders.append(torch.cat([r.indices for r in requests]).tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(1000))
    assert orders[0] != orders[1]


def test_the_same_pixels_with_0_1_and_2_workers_and_none_twice():
    alone = epochs(digits())
    for workers in (1, 2):
        for mine, theirs in zip(alone, epochs(digits(num_workers=workers)), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))
    batches = [tensor[:50] for epoch in alone for tensor in epoch[::2]]
    assert not any(torch.equal(a, b) for i, a in enumerate(batches) for b in batches[:i])


def test_two_images_of_a_batch_are_cut_in_different_places():
    module = digits(augment=Augmentation(pad=0, flip=0, cutout=8))
    images, _ = next(iter(module.train_dataloader()))
    holes = {tuple(torch.nonzero((image == 0).all(0))[0].tolist()) for image in images}
    assert len(holes) > 100


def test_with_the_batch_engine_an_image_looks_the_same_in_any_batch_and_process_of_an_epoch():
    def seen(epoch: int, **options) -> dict[bytes, torch.Tensor]:
        """Each training image of the epoch by its own pixels."""
        module = digits(engine="batch", **options)
        loader = module.train_dataloader()
        loader.sampler.set_epoch(epoch)
        requests = list(loader.sampler)
        assert module.transforms(augment=True).__class__.__name__ == "BatchBackend"
        originals = [image for request in requests for image in module.train_images.images[request.indices]]
        prepared = [image for images, _ in loader for image in images]
        return {original.numpy().tobytes(): image for original, image in zip(originals, prepared, strict=True)}

    whole, small, later, other = seen(1), seen(1, batch_size=50), seen(2), seen(1, seed=1)
    assert len(whole) == len(small) == 1437
    assert all(torch.equal(whole[key], small[key]) for key in whole)
    for changed in (later, other):
        assert sum(torch.equal(whole[key], changed[key]) for key in whole) < 20


def test_all_test_images_are_served_in_order_without_randomness():
    module = digits()
    first, second = ([batch for batch in module.test_dataloader()] for _ in range(2))
    assert torch.equal(torch.cat([labels for _, labels in first]), module.test_images.labels)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    assert len(module.test_images) == 360


def test_held_out_images_are_stratified_seeded_and_not_trained_on():
    module, again, other = digits(val_size=200), digits(val_size=200), digits(val_size=200, seed=1)
    labels = torch.cat([labels for _, labels in module.val_dataloader()])
    assert torch.bincount(labels).tolist() == pytest.approx([20] * 10, abs=1)
    assert len(module.train_images) == 1437 - 200
    whole = {image.numpy().tobytes() for image in digits().train_images.images}
    parts = [{image.numpy().tobytes() for image in part.images} for part in (module.train_images, module._val)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == whole
    assert torch.equal(module._val.images, again._val.images)
    assert not torch.equal(module._val.images, other._val.images)


def test_a_part_of_the_training_images_is_stratified_seeded_and_held_out_images_are_not_in_it():
    module, again, other = (digits(train_size=300, val_size=200, seed=seed) for seed in (0, 0, 1))
    assert torch.bincount(module.train_images.labels).tolist() == pytest.approx([30] * 10, abs=2)
    assert torch.equal(module.train_images.images, again.train_images.images)
    assert not torch.equal(module.train_images.images, other.train_images.images)
    parts = [{image.numpy().tobytes() for image in part.images} for part in (module.train_images, module._val)]
    assert len(parts[0]) == 300
    assert not parts[0] & parts[1]
    assert module.count_training_images() == 300
    assert len(digits(train_size=1437).train_images) == 1437


def test_a_run_on_the_cpu_pins_no_memory_though_there_be_a_gpu(monkeypatch):
    module = digits()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not any(loader.pin_memory for loader in (module.train_dataloader(), module.test_dataloader()))


def test_without_held_out_images_evaluation_sees_the_test_images():
    module = digits()
    assert module.val_dataloader().dataset.data is module.test_images


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--data.batch_size must be at least 1; received 0"),
        ({"batch_size": 1438}, "--data.batch_size 1438 is larger than the 1437 training images"),
        ({"val_size": -1}, "--data.val_size must be 0 or more; received -1"),
        ({"val_size": 1437}, "--data.val_size 1437 does not fit the 1437 training images"),
        ({"val_size": 5}, "choose from 10 to 1427, or 0"),
        ({"train_size": 5}, "--data.train_size 5 does not fit the 1437 training images of 10 classes"),
        ({"train_size": 1300, "val_size": 200}, "choose from 10 to 1227, or 1237"),
        ({"num_workers": -1}, "--data.num_workers must be 0 or more"),
        ({"num_workers": 2, "engine": "batch"}, "--data.engine batch needs no workers; received --data.num_workers 2"),
        (
            {"engine": "batch", "augment": Augmentation(gray=0.1)},
            "--data.engine batch does not move or recolour images; received --data.augment.gray 0.1",
        ),
        ({"std": (0.2, 0.0, 0.2)}, "--data.std must be positive"),
        ({"image_size": 16}, "--data.image_size must be at least 32"),
        ({"augment": Augmentation(flip=2)}, "--data.augment.flip is a probability"),
        ({"augment": Augmentation(gray=-1)}, "--data.augment.gray is a probability"),
        (
            {"augment": Augmentation(shift_scale_rotate=ShiftScaleRotate(p=1.5))},
            "--data.augment.shift_scale_rotate.p is a probability, from 0 to 1; received 1.5",
        ),
        (
            {"augment": Augmentation(shift_scale_rotate=ShiftScaleRotate(rotate=200))},
            "--data.augment.shift_scale_rotate.rotate must be from 0 to 180 degrees; received 200",
        ),
        (
            {"augment": Augmentation(color_jitter=ColorJitter(hue=0.6))},
            "--data.augment.color_jitter.hue must be from 0 to 0.5; received 0.6",
        ),
        ({"augment": Augmentation(pad=40)}, "--data.augment.pad must be from 0 to 31"),
        ({"augment": Augmentation(cutout=33)}, "--data.augment.cutout must be from 0 to 32"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(UserError, match=message):
        digits(**options)
