"""Names that people choose, in figures and on pages: long, in any script, with signs that mean something elsewhere."""

import base64
import io
import re
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from customresnet.analysis.comparison.evaluations import Evaluations
from customresnet.analysis.comparison.significance import significance
from customresnet.analysis.dataset.samples import class_images
from customresnet.analysis.evaluation.classes import confusion, per_class
from customresnet.analysis.evaluation.galleries import choose_misclassified, hardest_and_easiest, misclassified
from customresnet.analysis.evaluation.overview import overview
from customresnet.analysis.evaluation.predictions import Predictions
from customresnet.analysis.page import Section, write_page
from customresnet.data.labelled_images import LabelledImages
from customresnet.runtime import pictures
from customresnet.runtime.pictures import drawable, image_grid, shorten, text_style, text_width
from tests.conftest import BOUNDS, make_tree

LONG = [f"a_class_name_of_{'eighty_four_characters_' * 3}{number:02}".ljust(84, "x") for number in range(4)]
ODD = [
    "$x_1$ and $y$",
    "a<b>&amp;",
    "two\nlines",
    "قطة",
    "e\u202evil",
    "<script>alert(1)</script>",
    "Ünï\\frac{1}{2}",
    "猫",
]


def made(classes: list[str], each: int | list[int] = 5, size: int = 32) -> Predictions:
    """Random predictions for ``each`` images of every class."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(classes)), each)
    pixels = torch.from_numpy(random.integers(0, 256, (len(labels), size, size, 3), dtype=np.uint8))
    data = LabelledImages(pixels, torch.from_numpy(labels), tuple(classes))
    return Predictions(data, torch.from_numpy(random.dirichlet(np.ones(len(classes)), len(labels))).float())


def texts(section: Section) -> set[str]:
    """All texts in a section's figures."""
    return {text.get_text() for figure in section.figures.values() for text in figure.findobj(Text)}


@pytest.fixture
def no_fonts(monkeypatch):
    """As if matplotlib's own font were the only one installed; forget what earlier tests looked up."""
    caches = (pictures._fonts, pictures._numbered, pictures.text_width)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(pictures, "fontManager", types.SimpleNamespace(ttflist=[]))
    yield
    for cached in caches:
        cached.cache_clear()


# ------------------------------------------------------------------------------------------------------- long names


@pytest.mark.parametrize(
    "names",
    [LONG, [f"n{number:05}_some_name_that_ends_alike" for number in range(30)], ["x" * 40, "y" * 40, "z"], ["x" * 40]],
)
def test_a_name_is_cut_until_it_fits_but_not_where_names_differ(names):
    for inches in (0.9, 1.5, 2.2):
        cut = [shorten(name, inches, "small", names, start="→ ", end=" 83%") for name in names]
        assert len(set(cut)) == len(names)
        for shown in cut:
            assert text_width(shown, "small") <= inches
            assert re.fullmatch("→ .+ 83%", shown)
            if "…" in shown:
                assert text_width(shown.replace("…", "…xxxxx", 1), "small") > inches  # no shorter than necessary
    assert shorten("cat", 1, "small", ("cat", "car")) == "cat"


def test_captions_do_not_overlap_and_end_with_their_percentage():
    predictions = made(LONG)
    section = misclassified(predictions, choose_misclassified(predictions, 10), 10)
    figure = section.figure
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) == 10
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(re.fullmatch(r".*….*\n→ .*….* \d+%", text.get_text()) for text in figure.axes[0].texts)


@pytest.mark.parametrize("build", [per_class, confusion, hardest_and_easiest])
def test_no_text_leaves_a_figure(build):
    for figure in build(made(LONG)).figures.values():
        figure.draw_without_rendering()
        extent = figure.get_tightbbox()
        assert -0.02 < extent.x0 < extent.x1 < figure.get_figwidth() + 0.02


def test_the_page_has_whole_names_in_tables_and_on_hover(tmp_path):
    page = write_page(tmp_path, "Page", [per_class(made(LONG))]).read_text()
    table = page[page.index("<tbody>") :]
    assert [name in table.replace("<wbr>", "") for name in LONG] == [True] * 4
    assert {name for name in LONG if f"<title>{name}</title>" in page} == set(LONG)


# ---------------------------------------------------------------------------------------------------- signs and scripts


def test_signs_are_not_interpreted(tmp_path):
    names = ODD[:-1]
    predictions = made(names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sections = [per_class(predictions), confusion(predictions), hardest_and_easiest(predictions)]
        page = write_page(tmp_path, names[0] + names[5], sections).read_text()
    assert "<script>" not in page
    assert "\u202e" not in page
    shown = texts(sections[0])
    assert {"$x_1$ and $y$", "a<b>&amp;", "two lines", "evil", "Ünï\\frac{1}{2}"} <= shown
    assert '<td class="left">a&lt;b&gt;&amp;amp;</td>' in page
    assert "<bdi>قطة</bdi>" in page
    assert not any(text.get_parse_math() for text in sections[2].figure.axes[0].texts)


def test_names_without_a_font_become_numbers_with_one_warning(no_fonts, tmp_path, capsys):
    predictions = made(["猫", "dog", "猫犬"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sections = [per_class(predictions), confusion(predictions), hardest_and_easiest(predictions)]
        sections += [
            misclassified(predictions, choose_misclassified(predictions, 5), 5),
            class_images(predictions.data),
        ]
        page = write_page(tmp_path, "猫", sections).read_text()
    error = capsys.readouterr().err
    assert error.count("warning: figures show numbers instead of 2 class names") == len(error.splitlines()) == 1
    assert "犬猫" in error
    for section in sections:
        assert not re.search("[猫犬?]", "".join(texts(section)))
    assert {"class 0", "dog", "class 2"} <= texts(sections[0])
    assert [row["in figures"] for row in sections[0].table] == ["class 0", "dog", "class 2"]
    assert "<title>猫犬</title>" in page
    assert "in figures" not in per_class(made(LONG)).table[0]


def test_an_installed_font_with_the_glyphs_is_used(no_fonts, monkeypatch, capsys):
    upright = {"style": "normal", "weight": 400}
    fonts = [
        types.SimpleNamespace(name=name, fname=name, **upright) for name in ("Last Resort", "Odd", "Some Sans CJK")
    ]
    monkeypatch.setattr(pictures, "fontManager", types.SimpleNamespace(ttflist=fonts))
    known = {"Last Resort": "猫ช🦄", "Odd": "猫ช", "Some Sans CJK": "猫"}
    monkeypatch.setattr(pictures, "_glyphs", lambda font: frozenset(known.get(font, "abc ")))
    assert text_style(["a猫"])["fontfamily"][1:] == ["Some Sans CJK"]
    assert text_style(["猫ช"])["fontfamily"][1:] == ["Some Sans CJK", "Odd"]
    assert drawable("猫 🦄", ["猫"]) == "猫 ?"
    assert capsys.readouterr().err == ""


def test_any_caption_can_be_drawn(no_fonts):
    """As in the figure of the training images, which fit draws."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = image_grid(np.zeros((3, 8, 8, 3), np.uint8), ["猫\ufe0f", "a\x07b\udce9", "$"], columns=3)
        figure.draw_without_rendering()
    assert [text.get_text() for text in figure.axes[0].texts] == ["?\ufe0f", "ab", "$"]


# --------------------------------------------------------------------------------------------------------- many classes

MANY = [f"n{number:04}" for number in range(60)]


def test_the_most_confused_classes_have_numbers_and_all_a_picture():
    predictions = made(MANY)
    section = confusion(predictions)
    counts = np.array(section.numbers["counts"])
    assert counts.shape == (60, 60)
    wrong = counts - np.diag(np.diag(counts))
    matrix, _, picture = section.figures.values()
    shown = [int(text.get_text()[1:]) for text in matrix.axes[0].get_yticklabels()]
    assert len(shown) == len(set(shown)) <= 20
    assert sorted(shown) == shown
    both = wrong + wrong.T
    assert both[np.ix_(shown, shown)].max() == both.max()
    assert np.array_equal(picture.axes[0].images[0].get_array(), np.array(section.numbers["shares"]))
    assert not picture.axes[0].texts
    assert f"The {len(shown)} most confused of 60 classes." in next(iter(section.figures))


def test_figures_show_some_of_many_classes_and_files_all():
    predictions = made(MANY)
    section = per_class(predictions)
    accuracy = predictions.class_accuracy.numpy()
    names = [text.get_text() for text in section.figure.axes[0].get_yticklabels()]
    assert len(names) == 40
    assert [accuracy[int(name[1:])] for name in names[:20]] == sorted(accuracy, reverse=True)[:20]
    assert [accuracy[int(name[1:])] for name in names[20:]] == sorted(accuracy, reverse=True)[-20:]
    assert len(section.table) == len(section.numbers["classes"]) == 60
    hardest = hardest_and_easiest(predictions)
    assert len(hardest.numbers) == 60 * 8
    assert len(hardest.figure.axes[0].images) == 20 * 4
    captions = {text.get_text().split()[0] for text in hardest.figure.axes[0].texts}
    assert sorted(accuracy[int(name[1:])] for name in captions) == sorted(accuracy)[:20]


def test_a_tall_grid_stays_below_matplotlibs_limit(tmp_path):
    figure = image_grid(np.zeros((400, 2, 2, 3), np.uint8), [""] * 400, columns=1)
    write_page(tmp_path, "Page", [Section("tall", "Tall", {"": figure})])
    with Image.open(tmp_path / "tall.png") as image:
        assert 40_000 < image.height < 2**16


def test_pictures_on_the_page_are_webp_in_their_size(tmp_path):
    for size, exact in ((32, True), (96, False)):
        section = misclassified(predictions := made(["a", "b"], size=size), choose_misclassified(predictions, 1), 1)
        page = write_page(tmp_path, "Page", [section]).read_text()
        (kind, data), *others = re.findall(r"data:image/(\w+);base64,([^\"]+)", page)
        assert (kind, others) == ("webp", [])
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            pixels = np.asarray(image.convert("RGB"))
        expected = predictions.data.images[choose_misclassified(predictions, 1)[0]].numpy()
        assert pixels.shape == expected.shape
        assert (np.array_equal(pixels, expected)) == exact


# --------------------------------------------------------------------------------------------------- unbalanced classes

CHECKPOINT = {
    "hyper_parameters": {
        **{"network": "custom_resnet", "width": 8, "dropout": 0.0, "lr_min": 1e-4, "lr_max": 1e-3, "momentum": None},
        **{"weight_decay": 0.0, "policy": "one_cycle", "peak_epoch": None, "anneal": "linear"},
    },
    "preprocessing": {
        **{"source": "folder", "image_size": 32, "classes": ["a", "b"]},
        **{"mean": [0.5] * 3, "std": [0.25] * 3},
    },
    "epoch": 0,
    "global_step": 1,
}


@pytest.mark.parametrize(("each", "unbalanced"), [([90, 10], True), ([50, 50], False), ([51, 49], False)])
def test_majority_and_macro_accuracy_stand_beside_the_accuracy_of_unbalanced_classes(each, unbalanced):
    predictions = made(["a", "b"], each)
    section = overview(predictions, CHECKPOINT, {}, {})
    right = (predictions.probabilities.numpy().argmax(1) == np.repeat([0, 1], each)).astype(float)
    macro = (right[: each[0]].mean() + right[each[0] :].mean()) / 2
    assert section.numbers["macro_accuracy"] == pytest.approx(macro)
    assert section.numbers["majority_accuracy"] == max(each) / 100
    sentence = f"largest class would reach {max(each)}.00%; macro accuracy, the mean over the classes, is {macro:.2%}."
    assert any(sentence in text for text in section.text) == unbalanced


def test_a_comparison_shows_them_too():
    shared = {"first": made(["a", "b"], [90, 10]), "second": made(["a", "b"], [50, 50])}
    unbalanced, balanced = (significance(Evaluations([{"x": each, "y": each}])).facts["x"] for each in shared.values())
    assert re.fullmatch(r"\d+ of 100 \([\d.]+%\); macro accuracy [\d.]+%; largest class 90.00%", unbalanced)
    assert re.fullmatch(r"\d+ of 100 \([\d.]+%\)", balanced)


def test_the_overview_names_the_folder():
    config = {"data": {"root": "some/where/pets.zip", "batch_size": 4, "val_size": 0, "augment": {}}}
    assert overview(made(["a", "b"]), CHECKPOINT, config, {}).facts["data"] == "folder pets.zip, 32x32, 2 classes"


def test_fit_warns_once_of_names_without_a_font(run, no_fonts, recwarn):
    make_tree(Path("tree"), classes=("猫", "犬", "鳥"), each=4)
    words = ["--data.source", "folder", "--data.root", "tree", "--data.batch_size", "8", "--model.width", "4"]
    outcome = run("fit", *words, *BOUNDS, "--trainer.max_epochs", "1", "--report", "true")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("warning: figures show numbers instead of 3 class names") == 1
    assert not [warning for warning in recwarn if "lyph" in str(warning.message)]
    page = Path("lightning_logs/customresnet/version_0/report/index.html").read_text()
    assert "<h1>custom_resnet on folder tree: customresnet, version_0</h1>" in page
