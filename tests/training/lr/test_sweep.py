"""The LR sweep: what it measures at each learning rate, and the bounds it suggests."""

import copy

import pytest
import torch

from customresnet import CIFAR10DataModule, ImageClassifier
from customresnet.schedules.schedule import Schedule
from customresnet.training.lr.sweep import LRSweep, at_constant_lr, measure_points, train_at
from customresnet.training.lr.sweep_result import LRPoint, LRSweepResult

OPTIONS = {"precision": "32-true"}


@pytest.fixture(scope="module")
def digits() -> CIFAR10DataModule:
    data = CIFAR10DataModule(source="digits", batch_size=128, seed=0)
    data.setup("fit")
    return data


# -------------------------------------------------------------------------------------------------------- one point


def test_the_optimizer_updates_the_measured_network(digits):
    model = ImageClassifier(width=8)
    untouched = copy.deepcopy(model.state_dict())
    torch.manual_seed(0)
    start = at_constant_lr(model, 1e-3).state_dict()
    still, barely = train_at(1e-12, model, digits, 24, OPTIONS)
    learned, moved = train_at(3e-3, model, digits, 24, OPTIONS)
    for name, weights in dict(moved.net.named_parameters()).items():
        assert not torch.allclose(weights, start[f"net.{name}"], atol=1e-5), name
        assert torch.allclose(dict(barely.net.named_parameters())[name], start[f"net.{name}"], atol=1e-8), name
    assert still.train_acc < 0.2
    assert learned.train_acc > 0.4
    assert all(torch.equal(a, b) for a, b in zip(untouched.values(), model.state_dict().values(), strict=True))


def test_a_point_equals_that_of_a_plain_loop(digits):
    """Of 15 steps, 12 an epoch, the last quarter is 13 to 15: the first three batches of the second epoch."""
    point, _ = train_at(3e-3, ImageClassifier(width=4), digits, 15, OPTIONS)
    torch.manual_seed(0)
    network = ImageClassifier(width=4).net.train()
    adam = torch.optim.Adam(network.parameters(), lr=3e-3)
    loader = digits.train_dataloader()
    loader.trainer = None
    batches = []
    for epoch in (0, 1):
        loader.sampler.set_epoch(epoch)
        batches += list(loader)
    correct, losses = [], []
    for images, labels in batches[:15]:
        logits = network(images)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        correct.append(int((logits.argmax(1) == labels).sum()))
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        adam.step()
    assert point.images == 3 * 128
    assert point.train_acc == pytest.approx(sum(correct[-3:]) / 384, abs=2 / 384)
    assert point.train_loss == pytest.approx(sum(losses[-3:]) / 3, rel=1e-3)


def test_learning_rate_and_momentum_are_constant():
    model = at_constant_lr(ImageClassifier(width=4, policy="triangular", half_cycle=2, weight_decay=0.1), 0.02)
    schedule = Schedule.from_policy(model.policy(), model.new_optimizer(), 30, 10)
    assert set(schedule.lr) == {0.02}
    assert set(schedule.momentum) == {0.9}
    assert model.hparams["weight_decay"] == 0.1


def test_points_do_not_depend_on_their_order(digits):
    model, rates = ImageClassifier(width=4), [1e-4, 3e-3, 1e-1]
    rising = list(measure_points(rates, model, digits, 6, OPTIONS))
    falling = list(measure_points(rates[::-1], model, digits, 6, OPTIONS))
    assert rising == falling[::-1]
    assert len({point.train_loss for point in rising}) == 3


@pytest.mark.slow
def test_parallel_points_are_equal_up_to_rounding(digits):
    model, rates = ImageClassifier(width=4), [1e-4, 3e-3]
    alone = list(measure_points(rates, model, digits, 6, OPTIONS))
    parallel = sorted(measure_points(rates, model, digits, 6, OPTIONS, parallel=2), key=lambda point: point.lr)
    for one, other in zip(alone, parallel, strict=True):
        assert other.lr == one.lr
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-3)


def test_a_diverged_point_is_recorded_and_the_sweep_continues(digits):
    points = list(measure_points([1e30, 1e-3], ImageClassifier(width=4), digits, 6, OPTIONS))
    assert [point.diverged for point in points] == [True, False]
    assert points[0].train_acc is None


# ---------------------------------------------------------------------------------------------------- the suggestion


def sweep_result(
    *accuracies: float | None, val: tuple[float, ...] | None = None, val_images: int = 5000
) -> LRSweepResult:
    lrs = LRSweep(points=len(accuracies), start=1e-4, end=1.0, spacing="log").lrs()
    points = [
        LRPoint(lr, None, None, None, 0, diverged=True)
        if accuracy is None
        else LRPoint(lr, accuracy, 1.0, val[number] if val else None, 5120, val_images if val else 0)
        for number, (lr, accuracy) in enumerate(zip(lrs, accuracies, strict=True))
    ]
    return LRSweepResult({"--spacing": "log"}, lrs, 40, points)


def test_lrmax_is_the_best_point_and_lrmin_a_tenth_of_it():
    result = sweep_result(0.2, 0.4, 0.5, 0.3, None)
    assert result.lr_max == pytest.approx(1e-2)
    assert result.lr_min == pytest.approx(1e-3)
    assert result.doubts() == []


def test_validation_accuracy_decides_if_there_is_one():
    assert sweep_result(0.2, 0.4, 0.5, val=(0.2, 0.4, 0.3)).lr_max == pytest.approx(1e-2)


@pytest.mark.parametrize(
    ("accuracies", "doubt"),
    [
        ((0.5, 0.4, 0.3), "the best point is the lowest learning rate tried: try a `start` below 0.0001"),
        ((0.3, 0.4, 0.5), "the best point is the highest learning rate tried: try an `end` above 1"),
        ((0.100, 0.105, 0.101), "the curve is flat, 10.0% to 10.5%"),
        ((None, None, None), "every learning rate diverged"),
    ],
)
def test_reasons_to_distrust_the_suggestion_are_given(accuracies, doubt):
    (found,) = sweep_result(*accuracies).doubts()
    assert doubt in found


def test_the_number_of_validation_images_decides_whether_a_curve_is_flat():
    """41%, 44% and 40% of 100 images differ by chance, of 5,000 they do not."""
    few, many = (sweep_result(0.2, 0.4, 0.3, val=(0.41, 0.44, 0.40), val_images=n) for n in (100, 5000))
    assert "the curve is flat" in few.doubts()[0]
    assert many.doubts() == []


def test_the_last_point_before_divergence_is_no_edge():
    assert sweep_result(0.3, 0.4, 0.5, None).doubts() == []


def test_learning_rates_are_evenly_spaced():
    assert LRSweep(points=5, start=0.1, end=0.5).lrs() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert LRSweep(points=4, start=1e-4, end=1e-1, spacing="log").lrs() == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])
    assert LRSweep().lrs()[::19] == pytest.approx([1e-4, 1.0])
