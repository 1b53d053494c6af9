"""Sections on a network's predictions against independent NumPy."""

import json

import numpy as np
import pytest
import torch

from customresnet.analysis.evaluation.calibration import calibration
from customresnet.analysis.evaluation.classes import confusion, per_class
from customresnet.analysis.evaluation.curves import curves
from customresnet.analysis.evaluation.galleries import choose_misclassified, hardest_and_easiest, misclassified
from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.data.labelled_images import LabelledImages
from customresnet.runtime.errors import UserError

CLASSES = ("cat", "dog", "owl", "yak", "newt")
IMAGES = 500


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    """Predictions better than chance. The last class has no images but is sometimes predicted."""
    random = np.random.default_rng(0)
    labels = random.choice(4, IMAGES, p=[0.4, 0.3, 0.2, 0.1])
    logits = random.normal(size=(IMAGES, 5)) * 1.5
    logits[np.arange(IMAGES), labels] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pixels = torch.from_numpy(random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8))
    data = LabelledImages(pixels, torch.from_numpy(labels), CLASSES)
    return Predictions(data, torch.from_numpy(probabilities).float())


def numpy_confusion(predictions: Predictions) -> np.ndarray:
    counts = np.zeros((5, 5), dtype=int)
    for true, predicted in zip(predictions.labels.numpy(), predictions.probabilities.numpy().argmax(1), strict=True):
        counts[true, predicted] += 1
    return counts


def test_confusion_matrix_equals_numpys_and_its_rows_sum_to_the_class_counts(predictions):
    numbers = confusion(predictions).numbers
    counts = np.array(numbers["counts"])
    assert (counts == numpy_confusion(predictions)).all()
    assert (counts.sum(axis=1) == np.bincount(predictions.labels, minlength=5)).all()
    assert np.array(numbers["shares"])[:4].sum(axis=1) == pytest.approx(1)
    assert (np.array(numbers["shares"])[4] == 0).all()


def test_the_most_frequent_mistakes_are_listed(predictions):
    section, counts = confusion(predictions), numpy_confusion(predictions)
    np.fill_diagonal(counts, 0)
    true, predicted = np.unravel_index(counts.argmax(), counts.shape)
    largest = section.numbers["largest"]
    assert (largest[0]["true"], largest[0]["predicted"]) == (CLASSES[true], CLASSES[predicted])
    assert [c["count"] for c in largest] == sorted(counts.flatten(), reverse=True)[:5]
    assert f"{CLASSES[true]} predicted as {CLASSES[predicted]}: {counts.max()} images" in section.text[0]


def test_precision_recall_and_f1_equal_numpys(predictions):
    counts, section = numpy_confusion(predictions), per_class(predictions)
    for index, row in enumerate(section.numbers["classes"]):
        correct, images, predicted = counts[index, index], counts[index].sum(), counts[:, index].sum()
        assert (row["correct"], row["images"]) == (correct, images)
        assert row["precision"] == pytest.approx(correct / predicted)
        if images:
            assert row["recall"] == row["accuracy"] == pytest.approx(correct / images)
            assert row["f1"] == pytest.approx(2 * correct / (images + predicted))


def test_counts_of_the_classes_sum_to_the_overall_accuracy(predictions):
    numbers = per_class(predictions).numbers
    assert sum(row["correct"] for row in numbers["classes"]) == numbers["correct"] == int(predictions.correct.sum())
    assert sum(row["images"] for row in numbers["classes"]) == numbers["images"] == IMAGES
    assert numbers["accuracy"] == numbers["correct"] / numbers["images"]


def test_a_class_without_images_is_named_and_has_no_accuracy(predictions):
    section = per_class(predictions)
    row = section.numbers["classes"][4]
    assert (row["images"], row["accuracy"], row["recall"], row["low"]) == (0, None, None, None)
    assert "Classes without test images: newt." in section.text
    json.dumps(section.numbers, allow_nan=False)


def test_calibration_error_equals_numpys(predictions):
    probabilities = predictions.probabilities.double().numpy()
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == predictions.labels.numpy()
    bins = np.minimum((confidence * 15).astype(int), 14)
    expected = sum(
        abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins)
    )
    numbers = calibration(predictions).numbers
    assert numbers["ece"] == pytest.approx(expected, abs=1e-6)
    assert [row["images"] for row in numbers["bins"]] == np.bincount(bins, minlength=15).tolist()
    weighted = sum(abs(r["accuracy"] - r["confidence"]) * r["images"] for r in numbers["bins"] if r["images"]) / IMAGES
    assert weighted == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------------------------ galleries


def test_gallery_shows_the_most_confident_mistakes_first(predictions):
    chosen = choose_misclassified(predictions, 20)
    wrong = [i for i in range(IMAGES) if not predictions.correct[i]]
    expected = sorted(wrong, key=lambda i: -float(predictions.confidence[i]))[:20]
    assert chosen.tolist() == expected
    rows = misclassified(predictions, chosen, 20).numbers
    assert [row["image"] for row in rows] == expected
    assert all(row["true"] != row["predicted"] for row in rows)


def test_a_random_sample_is_seeded(predictions):
    first, again, other = (choose_misclassified(predictions, 20, "random", seed=s).tolist() for s in (1, 1, 2))
    assert first == again != other
    assert not predictions.correct[first].any()
    assert len(set(first)) == 20


def test_a_pair_limits_the_gallery_and_a_short_gallery_says_so(predictions):
    chosen = choose_misclassified(predictions, 1000, pair="cat->dog")
    expected = (predictions.labels == 0) & (predictions.predicted == 1)
    assert sorted(chosen.tolist()) == expected.nonzero().flatten().tolist()
    section = misclassified(predictions, chosen, 1000, "cat->dog")
    assert f"1000 images (cat->dog) were requested; there are {len(chosen)}." in section.text


@pytest.mark.parametrize("pair", ["cat", "cat->cow", "cat->dog->owl"])
def test_a_pair_of_unknown_classes_is_refused(predictions, pair):
    with pytest.raises(UserError, match=f"`gallery.pair` must be TRUE->PREDICTED, .* cat, dog.*received {pair}"):
        choose_misclassified(predictions, pair=pair)


def test_hardest_and_easiest_have_the_lowest_and_highest_probability_of_the_true_class(predictions):
    truth = predictions.probabilities[torch.arange(IMAGES), predictions.labels]
    rows = hardest_and_easiest(predictions, each=3).numbers
    for label, name in enumerate(CLASSES[:4]):
        own = truth[predictions.labels == label]
        hardest = [row["probability"] for row in rows if (row["class"], row["kind"]) == (name, "hardest")]
        easiest = [row["probability"] for row in rows if (row["class"], row["kind"]) == (name, "easiest")]
        assert hardest == pytest.approx(own.sort().values[:3].tolist())
        assert easiest == pytest.approx(own.sort(descending=True).values[:3].tolist())


def test_images_in_a_gallery_have_unchanged_pixels(predictions):
    figure = misclassified(predictions, choose_misclassified(predictions, 5), 5).figure
    shown = [image.get_array() for image in figure.axes[0].images]
    assert len(shown) == 5
    for pixels, index in zip(shown, choose_misclassified(predictions, 5), strict=True):
        assert (np.asarray(pixels) == predictions.data.images[index].numpy()).all()


# -------------------------------------------------------------------------------------------------------------- curves


def test_curves_mark_the_best_and_the_last_epoch():
    rows = [
        {"epoch": e, "lr": 1e-3, "train/loss": 1.0, "train/acc": a + 0.05, "test/loss": 1.0, "test/acc": a}
        for e, a in enumerate((0.5, 0.9, 0.8), start=1)
    ]
    section = curves(rows)
    assert "The test accuracy is 80.00% after the last epoch (3) and 90.00% after the best one (2)." in section.text[0]
    assert "ends 5.0 points higher" in section.text[1]
    legend = [text.get_text() for text in section.figure.axes[1].get_legend().get_texts()]
    assert legend == ["training, last 85.00%", "test, last 80.00%", "best test: 90.00%, epoch 2"]


def test_curves_of_a_run_with_gaps_and_held_out_images():
    rows = [
        {"epoch": 1.0, "lr": 1e-3, "train/loss": 1.0, "train/acc": 0.5},
        {"epoch": 2.0, "lr": 1e-3, "train/loss": 1.0, "train/acc": 0.6, "val/loss": 1.0, "val/acc": 0.7},
    ]
    assert "The validation accuracy is 70.00% after the last epoch (2)" in curves(rows).text[0]
    expected = "The training accuracy is 50.00% after the last epoch (1) and 50.00% after the best one (1)."
    assert curves(rows[:1]).text == [expected]


def test_curves_without_accuracies_are_missing():
    assert "no epochs.csv" in curves([]).missing
    assert "no epochs.csv" in curves([{"epoch": 1.0, "f1": 0.5}]).missing


def test_curves_tolerate_missing_values():
    rows = [{"epoch": 1.0, "train/acc": 0.5}, {"epoch": 2.0, "train/loss": 1.0, "lr": 1e-3, "test/acc": 0.6}]
    assert "60.00% after the last epoch (2)" in curves(rows).text[0]
