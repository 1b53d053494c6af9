"""The `report` command: its page, the files beside it, and what it says when something is missing."""

import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from customresnet.analysis.page import Section, write_page
from customresnet.cli import main as cli
from customresnet.data import sources
from tests.conftest import BOUNDS, SMALL, make_tree, read_json

SECTIONS = [
    "overview",
    "curves",
    "per_class",
    "confusion",
    "calibration",
    "misclassified",
    "gradcam_wrong",
    "gradcam_right",
    "hardest",
    "architecture",
]


@pytest.fixture(scope="module")
def copied(small_run, tmp_path_factory) -> Path:
    """A copy of a run's folder."""
    return Path(shutil.copytree(small_run, tmp_path_factory.mktemp("copied") / "version_0"))


@pytest.fixture(scope="module")
def page(copied) -> str:
    cli.main(["report", "--ckpt_path", str(copied)])
    return (copied / "report/index.html").read_text()


def section(page: str, name: str) -> str:
    return re.search(rf'<section id="{name}">(.*?)</section>', page, re.S)[1]


def test_the_page_is_self_contained(page):
    assert re.findall(r'<section id="(\w+)">', page) == SECTIONS
    assert "Not shown" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page.replace("xlink:", ""))
    assert not re.search(r"@import|url\((?!#|&quot;#)", page)
    assert "#000000" not in page
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', page))
    assert referred <= set(identifiers)


def test_figures_and_numbers_are_files_beside_the_page(page, copied):
    for name in SECTIONS:
        assert (copied / f"report/{name}.json").is_file(), name
    for name in set(SECTIONS) - {"overview"}:
        assert list((copied / "report").glob(f"{name}*.png")), name
    assert (copied / "report/per_class.csv").read_text().startswith("class,images,correct,accuracy")


def test_it_counts_what_test_counts(page, copied, run):
    assert run("test", "--ckpt_path", str(copied)).code == 0
    expected = read_json(copied / "test.json")
    overview, classes = read_json(copied / "report/overview.json"), read_json(copied / "report/per_class.json")
    assert (overview["correct"], overview["images"]) == (expected["test/correct"], expected["test/images"])
    assert sum(row["correct"] for row in classes["classes"]) == expected["test/correct"]
    assert f"{expected['test/correct']} of 360 images" in section(page, "overview")


def test_figures_are_in_tensorboard_too(page, copied):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = EventAccumulator(str(copied), {"images": 0}).Reload().Tags()["images"]
    assert {"report/curves", "report/confusion 1", "report/confusion 2", "report/gradcam_right"} <= set(tags)


def test_fit_reads_the_images_once_and_writes_a_report_unless_disabled(run, capsys, monkeypatch):
    read = []
    load = sources.load
    monkeypatch.setattr(sources, "load", lambda *args: read.append(args[2]) or load(*args))
    words = ["fit", *SMALL, *BOUNDS, "--trainer.max_epochs", "1"]
    cli.main(words)
    assert "report: lightning_logs/demo/version_0/report/index.html" in capsys.readouterr().out
    assert sorted(read) == ["test", "train"]
    assert "report:" not in run(*words, "--report", "false").out
    assert not Path("lightning_logs/demo/version_1/report").exists()


def test_last_is_the_newest_run_of_any_name(run, copied):
    for age, folder in enumerate(("b/version_0", "a/version_1", "a/version_0")):
        shutil.copytree(copied, Path("lightning_logs") / folder)
        os.utime(Path("lightning_logs") / folder / "checkpoints/last.ckpt", (1000 - age, 1000 - age))
    outcome = run("report", "--ckpt_path", "last", "--gallery.images", "3")
    assert "report: lightning_logs/b/version_0/report/index.html" in outcome.out
    assert len(read_json(Path("lightning_logs/b/version_0/report/misclassified.json"))) == 3


def test_a_checkpoint_on_its_own_lacks_sections_and_the_page_says_why(run, small_run):
    shutil.copy(small_run / "checkpoints/last.ckpt", "alone.ckpt")
    outcome = run("report", "--ckpt_path", "alone.ckpt", "--output", "page")
    assert outcome.code == 0, outcome.err
    page = Path("page/index.html").read_text()
    assert "Not shown: there is no epochs.csv with accuracies beside the checkpoint" in section(page, "curves")
    assert "There is no result.json beside the checkpoint" in section(page, "overview")
    assert "<svg" in section(page, "confusion")
    assert not list(Path().glob("*tfevents*"))


def test_the_galleries_may_be_left_out(run, small_run):
    assert run("report", "--ckpt_path", str(small_run), "--output", "page", "--gallery.images", "0").code == 0
    assert Path("page/index.html").read_text().count("Not shown: no images were requested") == 3


def test_a_gallery_of_one_kind_of_mistake(run, copied, page):
    largest = read_json(copied / "report/confusion.json")["largest"][0]
    pair, count = f"{largest['true']}->{largest['predicted']}", largest["count"]
    words = ["--output", "page", "--gallery.images", str(count + 1), "--gallery.pair", pair]
    assert run("report", "--ckpt_path", str(copied), *words).code == 0
    sentence = f"{count + 1} images ({pair}) were requested; there are {count}."
    assert sentence in Path("page/index.html").read_text().replace("&gt;", ">")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ckpt_path", "nowhere"], "--ckpt_path nowhere: no such checkpoint"),
        (["--ckpt_path", "last"], "no run with a checkpoint in lightning_logs; give a checkpoint's path"),
        ([], "ckpt_path"),
        (["--gallery.images", "-1"], "--gallery.images must be at least 0; received -1"),
        (["--gallery.images", "many"], "--gallery.images takes int; received many"),
        (["--gallery.opacity", "2"], "--gallery.opacity must be from 0 to 1; received 2"),
        (["--gallery.order", "nope"], "'confidence', 'random'"),
        (["--gallery.pair", "1->cat"], "--gallery.pair must be TRUE->PREDICTED, with two of the classes 0, 1, 2"),
        (
            ["--gallery.layer", "nope"],
            "--gallery.layer nope: no layer of this name returns a feature map; layers: prep.0",
        ),
        (
            ["--data.source", "folder", "--data.root", "tree"],
            "--data.source: the images have the classes ['cat', 'dog', 'owl'], the checkpoint ['0', ",
        ),
        (["--nope", "1"], "--nope"),
        (["--output", "tree/train/cat/0.png/x"], "cannot write to --output tree/train/cat/0.png/x"),
    ],
)
def test_a_mistake_is_one_line(run, small_run, words, message):
    make_tree(Path("tree"))
    given = [] if not words or words[0] == "--ckpt_path" else ["--ckpt_path", str(small_run)]
    outcome = run("report", *given, *words)
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1
    assert message in outcome.err


def test_the_images_are_read_from_where_the_run_read_them(run, monkeypatch):
    make_tree(Path("tree"), each=20)
    words = ["--data.source", "folder", "--data.root", "tree", "--data.batch_size", "20", "--model.width", "4"]
    outcome = run("fit", *words, *BOUNDS, "--trainer.max_epochs", "1", "--report", "false")
    assert outcome.code == 0, outcome.err
    folder = "lightning_logs/customresnet/version_0"
    assert run("report", "--ckpt_path", folder, "--gallery.images", "0").code == 0
    shutil.move("tree", "moved")
    outcome = run("report", "--ckpt_path", folder)
    assert outcome.code == 2
    assert "--data.root tree does not exist" in outcome.err
    assert run("report", "--ckpt_path", folder, "--data.root", "moved", "--gallery.images", "0").code == 0


def test_a_run_on_a_folder_without_a_split_is_tested_on_the_same_images(run):
    make_tree(Path("tree"), each=20)
    words = ["--data.source", "folder", "--data.root", "tree/train", "--data.test_share", "0.3"]
    words += ["--data.batch_size", "14", "--model.width", "4"]
    for _ in range(2):
        assert run("fit", *words, *BOUNDS, "--trainer.max_epochs", "1", "--report", "false").code == 0
    folder = Path("lightning_logs/customresnet/version_0")
    outcome = run("report", "--ckpt_path", str(folder), "--gallery.images", "0")
    assert outcome.code == 0, outcome.err
    result, overview = read_json(folder / "result.json"), read_json(folder / "report/overview.json")
    assert (overview["correct"], overview["images"]) == (result["test/correct"], 18)
    assert run("compare").code == 0
    (pair,) = read_json(Path("lightning_logs/compare/differences.json"))["pairs"]
    assert pair["both"] + pair["only_first"] == result["test/correct"]


def test_classes_in_another_order_than_the_checkpoints_are_the_same_classes(run, page, copied):
    """Older versions sorted 10 before 2."""
    checkpoint = torch.load(copied / "checkpoints/last.ckpt", weights_only=True)
    order, state = [9, *range(9)], checkpoint["state_dict"]
    checkpoint["preprocessing"]["classes"] = [checkpoint["preprocessing"]["classes"][label] for label in order]
    for name in state:
        if name.startswith("net.") and state[name].shape[:1] == (10,):
            state[name] = state[name][order]
    torch.save(checkpoint, "reordered.ckpt")
    assert run("report", "--ckpt_path", "reordered.ckpt", "--output", "page", "--gallery.images", "0").code == 0
    expected = read_json(copied / "report/overview.json")["correct"]
    assert read_json(Path("page/overview.json"))["correct"] == pytest.approx(
        expected, abs=5
    )  # bf16 logits may be equal, and the first class wins


def test_another_checkpoint_of_a_run_has_its_own_page(run, copied):
    checkpoint = torch.load(copied / "checkpoints/last.ckpt", weights_only=True)
    torch.save({**checkpoint, "epoch": 0, "global_step": 12}, copied / "checkpoints/best.ckpt")
    outcome = run("report", "--ckpt_path", str(copied / "checkpoints/best.ckpt"), "--gallery.images", "1")
    assert outcome.code == 0, outcome.err
    page = (copied / "report_best/index.html").read_text()
    assert "This is the network after step 12. The time and speed below are for the whole run of 24" in page
    assert "<svg" in section(page, "gradcam_right")


def test_another_config_beside_a_copied_checkpoint_is_ignored(run, small_run):
    shutil.copy(small_run / "checkpoints/last.ckpt", "copied.ckpt")
    Path("config.yaml").write_text("something: else\n")
    outcome = run("report", "--ckpt_path", "copied.ckpt", "--gallery.images", "0")
    assert outcome.code == 0, outcome.err
    assert Path("report_copied/index.html").is_file()


def test_files_of_an_earlier_page_are_removed(tmp_path):
    for name in ("one.png", "one_1.png", "one.json", "one.csv", "one_more.png"):
        (tmp_path / name).touch()
    write_page(tmp_path, "A page", [Section("one", "One", missing="there is none")])
    assert {file.name for file in tmp_path.iterdir()} == {"index.html", "one_more.png"}


def test_a_report_that_cannot_be_written_does_not_fail_the_run(run, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("customresnet.analysis.report.write_report", fail)
    outcome = run("fit", *SMALL, *BOUNDS, "--trainer.max_epochs", "1", "--report", "true")
    assert outcome.code == 0
    assert "warning: the run is kept, but its report could not be written: disk full" in outcome.err


def test_a_missing_section_says_why(tmp_path):
    text = write_page(tmp_path, "A <title>", [Section("one", "One & only", missing="there is none")]).read_text()
    assert "A &lt;title&gt;" in text
    assert "Not shown: there is none" in section(text, "one")


def test_text_is_aligned_left_and_numbers_right(tmp_path):
    rows = [{"run": "1", "accuracy": "93.52%", "LRMAX": "-", "steps": 3, "loss": float("nan"), "note": ""}]
    rows += [{"run": "2", "accuracy": "-", "LRMAX": "3e-3 given", "steps": 4, "loss": 0.5, "note": "interrupted"}]
    page = write_page(tmp_path, "Page", [Section("table", "Table", table=rows)]).read_text()
    cells = re.findall(r'<t[hd]( class="left")?>', page)
    assert [bool(left) for left in cells] == [True, False, False, False, False, True] * 3
