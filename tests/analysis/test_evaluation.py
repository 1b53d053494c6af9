"""Views of a network's answers against independent NumPy."""

import json

import numpy as np
import pytest
import torch

from customresnet.analysis.evaluation.calibration import calibration
from customresnet.analysis.evaluation.confusion import confusion
from customresnet.analysis.evaluation.curves import curves
from customresnet.analysis.evaluation.galleries import choose_misclassified, hardest_and_easiest, misclassified
from customresnet.analysis.evaluation.per_class import per_class
from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.data.labelled_images import LabelledImages
from customresnet.runtime.errors import UserError

CLASSES = ("cat", "dog", "owl", "yak", "newt")
IMAGES = 500


@pytest.fixture(scope="module")
def outputs() -> Predictions:
    """Answers that lean to the truth; no image of the last class, which is nevertheless named at times."""
    random = np.random.default_rng(0)
    labels = random.choice(4, IMAGES, p=[0.4, 0.3, 0.2, 0.1])
    logits = random.normal(size=(IMAGES, 5)) * 1.5
    logits[np.arange(IMAGES), labels] += 2
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    pixels = torch.from_numpy(random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8))
    data = LabelledImages(pixels, torch.from_numpy(labels), CLASSES)
    return Predictions(data, torch.from_numpy(probabilities).float())


def numpy_confusion(outputs: Predictions) -> np.ndarray:
    counts = np.zeros((5, 5), dtype=int)
    for true, predicted in zip(outputs.labels.numpy(), outputs.probabilities.numpy().argmax(1), strict=True):
        counts[true, predicted] += 1
    return counts


def test_the_confusion_matrix_is_that_of_numpy_and_its_rows_sum_to_the_class_counts(outputs):
    numbers = confusion(outputs).numbers
    counts = np.array(numbers["counts"])
    assert (counts == numpy_confusion(outputs)).all()
    assert (counts.sum(axis=1) == np.bincount(outputs.labels, minlength=5)).all()
    assert np.array(numbers["shares"])[:4].sum(axis=1) == pytest.approx(1)
    assert (np.array(numbers["shares"])[4] == 0).all()


def test_the_largest_confusions_are_named_in_words(outputs):
    view, counts = confusion(outputs), numpy_confusion(outputs)
    np.fill_diagonal(counts, 0)
    true, predicted = np.unravel_index(counts.argmax(), counts.shape)
    largest = view.numbers["largest"]
    assert (largest[0]["true"], largest[0]["predicted"]) == (CLASSES[true], CLASSES[predicted])
    assert [c["count"] for c in largest] == sorted(counts.flatten(), reverse=True)[:5]
    assert f"{CLASSES[true]} was called {CLASSES[predicted]} in {counts.max()} images" in view.text[0]


def test_precision_recall_and_f1_are_those_of_numpy(outputs):
    counts, view = numpy_confusion(outputs), per_class(outputs)
    for index, row in enumerate(view.numbers["classes"]):
        right, images, named = counts[index, index], counts[index].sum(), counts[:, index].sum()
        assert (row["correct"], row["images"]) == (right, images)
        assert row["precision"] == pytest.approx(right / named)
        if images:
            assert row["recall"] == row["accuracy"] == pytest.approx(right / images)
            assert row["f1"] == pytest.approx(2 * right / (images + named))


def test_class_accuracies_weighted_by_support_are_the_overall_accuracy_exactly(outputs):
    numbers = per_class(outputs).numbers
    assert sum(row["correct"] for row in numbers["classes"]) == numbers["correct"] == int(outputs.correct.sum())
    assert sum(row["images"] for row in numbers["classes"]) == numbers["images"] == IMAGES
    assert numbers["accuracy"] == numbers["correct"] / numbers["images"]


def test_a_class_without_images_is_said_and_has_no_accuracy(outputs):
    view = per_class(outputs)
    row = view.numbers["classes"][4]
    assert (row["images"], row["accuracy"], row["recall"], row["low"]) == (0, None, None, None)
    assert "No test images of: newt." in view.text
    json.dumps(view.numbers, allow_nan=False)


def test_the_calibration_error_is_that_of_numpy(outputs):
    probabilities = outputs.probabilities.double().numpy()
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == outputs.labels.numpy()
    bins = np.minimum((confidence * 15).astype(int), 14)
    expected = sum(
        abs(correct[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in set(bins)
    )
    numbers = calibration(outputs).numbers
    assert numbers["ece"] == pytest.approx(expected, abs=1e-6)
    assert [row["images"] for row in numbers["bins"]] == np.bincount(bins, minlength=15).tolist()
    weighted = sum(abs(r["accuracy"] - r["confidence"]) * r["images"] for r in numbers["bins"] if r["images"]) / IMAGES
    assert weighted == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------------------------ galleries


def test_the_gallery_shows_the_most_confident_mistakes_first(outputs):
    chosen = choose_misclassified(outputs, 20)
    wrong = [i for i in range(IMAGES) if not outputs.correct[i]]
    expected = sorted(wrong, key=lambda i: -float(outputs.confidence[i]))[:20]
    assert chosen.tolist() == expected
    rows = misclassified(outputs, chosen, 20).numbers
    assert [row["image"] for row in rows] == expected
    assert all(row["true"] != row["predicted"] for row in rows)


def test_a_random_choice_is_seeded(outputs):
    first, again, other = (choose_misclassified(outputs, 20, "random", seed=s).tolist() for s in (1, 1, 2))
    assert first == again != other
    assert not outputs.correct[first].any()
    assert len(set(first)) == 20


def test_a_pair_narrows_the_choice_and_too_few_are_said(outputs):
    chosen = choose_misclassified(outputs, 1000, pair="cat->dog")
    expected = (outputs.labels == 0) & (outputs.predicted == 1)
    assert sorted(chosen.tolist()) == expected.nonzero().flatten().tolist()
    view = misclassified(outputs, chosen, 1000, "cat->dog")
    assert f"{len(chosen)} of cat->dog can be shown where 1000 were asked for." in view.text


@pytest.mark.parametrize("pair", ["cat", "cat->cow", "cat->dog->owl"])
def test_a_pair_of_unknown_classes_is_refused(outputs, pair):
    with pytest.raises(UserError, match=f"--gallery.pair is TRUE->PREDICTED of cat, dog.*received {pair}"):
        choose_misclassified(outputs, pair=pair)


def test_hardest_and_easiest_are_those_of_least_and_most_probability_of_the_truth(outputs):
    truth = outputs.probabilities[torch.arange(IMAGES), outputs.labels]
    rows = hardest_and_easiest(outputs, each=3).numbers
    for label, name in enumerate(CLASSES[:4]):
        mine = truth[outputs.labels == label]
        hardest = [row["probability"] for row in rows if (row["class"], row["kind"]) == (name, "hardest")]
        easiest = [row["probability"] for row in rows if (row["class"], row["kind"]) == (name, "easiest")]
        assert hardest == pytest.approx(mine.sort().values[:3].tolist())
        assert easiest == pytest.approx(mine.sort(descending=True).values[:3].tolist())


def test_a_picture_in_a_gallery_has_the_pixels_of_the_image(outputs):
    figure = misclassified(outputs, choose_misclassified(outputs, 5), 5).figure
    shown = [image.get_array() for image in figure.axes[0].images]
    assert len(shown) == 5
    for pixels, index in zip(shown, choose_misclassified(outputs, 5), strict=True):
        assert (np.asarray(pixels) == outputs.data.images[index].numpy()).all()


# -------------------------------------------------------------------------------------------------------------- curves


def test_curves_mark_the_best_and_the_last_epoch():
    rows = [
        {"epoch": e, "lr": 1e-3, "train/loss": 1.0, "train/acc": a + 0.05, "test/loss": 1.0, "test/acc": a}
        for e, a in enumerate((0.5, 0.9, 0.8), start=1)
    ]
    view = curves(rows)
    assert "The last test accuracy, of epoch 3, is 80.00%; the best, of epoch 2, 90.00%." in view.text[0]
    assert "ends 5.0 points above it" in view.text[1]
    legend = [text.get_text() for text in view.figure.axes[1].get_legend().get_texts()]
    assert legend == ["training, last 85.00%", "test, last 80.00%", "best test: 90.00%, epoch 2"]


def test_curves_of_a_run_with_gaps_and_held_out_images():
    rows = [
        {"epoch": 1.0, "lr": 1e-3, "train/loss": 1.0, "train/acc": 0.5},
        {"epoch": 2.0, "lr": 1e-3, "train/loss": 1.0, "train/acc": 0.6, "val/loss": 1.0, "val/acc": 0.7},
    ]
    assert "The last validation accuracy, of epoch 2, is 70.00%" in curves(rows).text[0]
    assert curves(rows[:1]).text == ["The last training accuracy, of epoch 1, is 50.00%; the best, of epoch 1, 50.00%."]
