"""The `compare` command: its numbers against the runs' own files, and its page and messages."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from scipy.stats import binomtest

from customresnet.analysis.comparison.evaluations import by_data_set
from customresnet.analysis.comparison.runs import overlaid_curves, text_table
from customresnet.data import sources
from customresnet.runs import folders as runs
from customresnet.runs.find import find_runs, short_names
from customresnet.runs.record import RunRecord
from tests.conftest import make_tree, read_json, train

REFERENCE = Path(__file__).parents[2] / "lightning_logs/reference"
LOGS = Path("lightning_logs")
PAGE = LOGS / "compare"


def add(run_folder: Path, name: str) -> Path:
    """Copy a run into lightning_logs of the current folder."""
    return Path(shutil.copytree(run_folder, LOGS / name))


def worsen(folder: Path) -> None:
    """Change the sign of some weights of a run, so that it predicts differently."""
    path = folder / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    weights = checkpoint["state_dict"]
    linear = [name for name, tensor in weights.items() if name.startswith("net.") and tensor.ndim == 2][-1]
    weights[linear] *= -1
    torch.save(checkpoint, path)


def cut(folder: Path, stage: str = "test") -> None:
    """Keep what a run interrupted after its first epoch would have written."""
    (folder / "result.json").unlink()
    lines = (folder / "epochs.csv").read_text().replace("test/", f"{stage}/").splitlines()
    (folder / "epochs.csv").write_text("\n".join(lines[:2]) + "\n")


def section(name: str) -> str:
    page = (PAGE / "index.html").read_text()
    return re.search(rf'<section id="{name}">(.*?)</section>', page, re.S)[1]


def by_name() -> dict[str, dict]:
    return {row["run"]: row for row in json.loads((PAGE / "runs.json").read_text())}


# ------------------------------------------------------------------------------------------------------------ the page


def test_every_run_in_lightning_logs_is_compared(run, small_run):
    add(small_run, "demo/version_0")
    worsen(add(small_run, "demo/version_1"))
    cut(add(small_run, "demo/version_2"))
    shutil.rmtree(LOGS / "demo/version_2/checkpoints")
    add(REFERENCE, "reference")
    for _ in range(2):  # the second time with the first page among the runs
        outcome = run("compare")
        assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "comparison: lightning_logs/compare/index.html"
    names = ["demo/version_0", "demo/version_1", "demo/version_2", "reference"]
    assert list(by_name()) == names
    assert [row["run"] for row in csv.DictReader((PAGE / "runs.csv").open())] == names
    page = (PAGE / "index.html").read_text()
    assert re.findall(r'<section id="(\w+)">', page) == ["runs", "curves", "differences"]
    assert "Not shown" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page.replace("xlink:", ""))
    assert "#000000" not in page
    assert all(f"<!-- {name} -->" in section("curves") for name in names)  # the legend
    assert "Not tested: demo/version_2, reference: no checkpoint." in section("differences")
    assert "demo/version_0 and demo/version_1: " in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 120


def test_the_table_shows_what_the_runs_recorded(run, small_run):
    add(small_run, "demo/version_0")
    add(REFERENCE, "reference")
    outcome = run("compare")
    result, reference = read_json(small_run / "result.json"), by_name()["reference"]
    row = by_name()["demo/version_0"]
    assert (row["network"], row["parameters"]) == ("custom_resnet, width 8", result["parameters"])
    assert (row["lr_max"], row["lr_max_origin"]) == (result["lr_max"], "found")
    assert (row["correct"], row["images"], row["accuracy"]) == (result["test/correct"], 360, result["test/acc"])
    assert (row["epochs"], row["planned_epochs"], row["remarks"]) == (2, 2, [])
    rows = list(csv.DictReader((small_run / "epochs.csv").open()))
    assert row["best_training_accuracy"] == max(float(line["train/acc"]) for line in rows)
    assert (reference["network"], reference["recipe"]) == ("custom_resnet", "customresnet")  # its default width
    expected = binomtest(9272, 10_000).proportion_ci(method="wilson")
    assert reference["interval"] == pytest.approx([expected.low, expected.high])
    shown = next(line for line in csv.DictReader((PAGE / "runs.csv").open()) if line["run"] == "reference")
    assert (shown["time"], shown["test accuracy"], shown["epochs"]) == ("1:55:38", "92.72%", "24 of 24")
    assert (shown["LRMAX"], shown["LRMIN"]) == ("0.000631 found", "3.16e-05 found")
    assert re.search(r"^reference +92.72% +92.19% to 93.21% ", outcome.out, re.M)


def test_a_bound_that_was_not_found_is_given(run, small_run):
    folder = add(small_run, "demo/version_0")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["model"] |= {"lr_max": 0.01, "width": None}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    found = RunRecord.from_folder(folder, "a")
    assert found.bound("lr_max") == (0.01, "given")
    assert found.bound("lr_min")[1] == "found"
    assert found.network == "custom_resnet"
    (folder / "lr_find.json").unlink()
    assert RunRecord.from_folder(folder, "a").bound("lr_min")[1] == "given"


@pytest.mark.parametrize(("stage", "shown"), [("test", ""), ("val", "validation ")])
def test_an_interrupted_run_is_listed_with_what_it_recorded(run, small_run, stage, shown):
    folder = add(small_run, "demo/version_0")
    cut(folder, stage)
    outcome = run("compare", str(folder))
    assert outcome.code == 0, outcome.err
    assert "demo/version_0: unfinished: 1 of 2 epochs" in outcome.out
    line = next(csv.DictReader((folder / "epochs.csv").open()))
    row = next(csv.DictReader((PAGE / "runs.csv").open()))
    assert row["test accuracy"] == f"{shown}{float(line[f'{stage}/acc']):.2%}"
    assert (row["95 % interval"], row["time"], row["note"]) == ("-", "-", "unfinished: 1 of 2 epochs")
    assert row["parameters"] == str(read_json(small_run / "result.json")["parameters"])  # counted here
    assert (f"demo/version_0, {shown.strip()}" in section("curves")) == (stage == "val")


@pytest.mark.parametrize(
    ("file", "content", "remark"),
    [
        ("config.yaml", "a: [", "config.yaml cannot be read"),
        ("config.yaml", "- 1", "config.yaml cannot be read"),
        ("config.yaml", "model: 3\ntrainer: {max_epochs: many, run_name: 3}", ""),
        ("config.yaml", "model: {network: nope, width: many, lr_max: true}", ""),
        ("config.yaml", None, "no config.yaml"),
        ("result.json", "{", "result.json cannot be read"),
        ("result.json", '{"test/acc": "x", "test/correct": 9, "test/images": 3, "seconds": null, "epochs": NaN}', ""),
        ("result.json", "{}", ""),
        ("lr_find.json", "\x00", "lr_find.json cannot be read"),
        ("epochs.csv", "epoch,train/loss\n1,abc\n", "epochs.csv cannot be read"),
        ("epochs.csv", "epoch,train/loss\n1,2,3\n", "epochs.csv cannot be read"),
        ("epochs.csv", b"\xff\xfe\x00", "epochs.csv cannot be read"),
        ("epochs.csv", "epoch,f1\n1,0.5\n", "epochs.csv has other columns: epoch, f1"),
        ("epochs.csv", "epoch,train/loss,test/acc\n1,nan,inf\n2,0.5,\n", ""),
        ("epochs.csv", "", ""),
        ("epochs.csv", None, "no epochs.csv"),
    ],
)
def test_a_damaged_run_is_marked(run, small_run, file, content, remark):
    folder = add(small_run, "demo/version_0")
    add(small_run, "demo/version_1")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = run("compare")
    assert outcome.code == 0, outcome.err
    assert by_name()["demo/version_0"]["remarks"] == ([remark] if remark else [])
    assert (f"demo/version_0: {remark}" in outcome.out) == bool(remark)
    assert by_name()["demo/version_1"]["accuracy"]
    json.loads((PAGE / "curves.json").read_text(), parse_constant=pytest.fail)
    assert "demo/version_0 and demo/version_1" in section("differences")


def test_runs_of_different_data_sets_share_no_table_and_no_plot(run, small_run):
    add(small_run, "demo/version_0")
    add(small_run, "demo/version_1")
    add(REFERENCE, "reference")
    outcome = run("compare")
    assert re.search(
        r"^digits:\nrun .*\ndemo/version_0 .*\ndemo/version_1 .*\nfolder cifar10.zip:\nrun .*\nreference ",
        outcome.out,
        re.M,
    )
    assert {name: row["data"] for name, row in by_name().items()} == {
        **{"demo/version_0": "digits", "demo/version_1": "digits", "reference": "folder cifar10.zip"}
    }
    headings = re.findall(r"<h3>(.*?)</h3>.*?<tbody>(.*?)</tbody>", section("runs"), re.S)
    assert [(name, rows.count("<tr>")) for name, rows in headings] == [("digits", 2), ("folder cifar10.zip", 1)]
    captions = re.findall(r"<figcaption>(.*?): ", section("curves"))
    assert captions == ["digits", "folder cifar10.zip"]
    assert "<h1>Comparison of 3 runs on 2 data sets</h1>" in (PAGE / "index.html").read_text()
    run("compare", "lightning_logs/demo")
    assert "<h1>Comparison of 2 runs on digits</h1>" in (PAGE / "index.html").read_text()
    assert "<h3>" not in section("runs")


def test_folders_of_the_same_name_are_told_apart(tmp_path):
    def record(root: str | None) -> RunRecord:
        return RunRecord(str(root), tmp_path, {"data": {"source": "folder", "root": root}}, {}, [], {}, [])

    roots = ("a/x.zip", "b/x.zip", str(Path("a/x.zip").resolve()), "y", None)
    grouped = {name: [run.name for run in runs] for name, runs in by_data_set(list(map(record, roots))).items()}
    assert grouped == {
        f"folder {Path('a/x.zip').resolve()}": ["a/x.zip", str(Path("a/x.zip").resolve())],
        f"folder {Path('b/x.zip').resolve()}": ["b/x.zip"],
        "folder y": ["y"],
        "folder": ["None"],
    }
    unknown = RunRecord("a", tmp_path / "none", {"data": 3}, {}, [], {}, [])
    assert list(by_data_set([unknown])) == ["unknown data"]


# ------------------------------------------------------------------------------------------------------- which runs


def test_runs_are_found_in_order_and_once(run, small_run):
    for number in (10, 9, 0):
        add(REFERENCE, f"b/version_{number}")
    add(small_run, "a/version_0")
    (LOGS / "a/version_1").mkdir()
    shutil.copy(REFERENCE / "lr_find.json", LOGS / "a/version_1")  # the result of an LR range test is not a run
    (LOGS / "b/loop").symlink_to((LOGS / "b").resolve())
    assert [found.name for found in find_runs(["lightning_logs"])] == [
        *("a/version_0", "b/version_0", "b/version_9", "b/version_10")
    ]
    given = ["lightning_logs/b/version_9", "lightning_logs/a/version_0/checkpoints/last.ckpt", "lightning_logs/a"]
    assert [found.name for found in find_runs([*given, *given])] == ["b/version_9", "a/version_0"]
    assert [found.name for found in find_runs(["lightning_logs/b", "lightning_logs/b/version_0/"])] == [
        *("b/version_0", "b/version_9", "b/version_10")
    ]
    (shipped,) = find_runs(["pretrained", str(runs.SHIPPED)])
    assert shipped.name == "advanced_net.safetensors"


def test_names_are_short_and_unique():
    def named(*paths: str) -> list[str]:
        return short_names([Path(path) for path in paths])

    assert named("/x/lightning_logs/demo/version_0", "/x/lightning_logs/reference") == ["demo/version_0", "reference"]
    assert named("/x/lightning_logs/a/v", "/y/lightning_logs/a/v", "/y/lightning_logs/b/v") == [
        *("x/lightning_logs/a/v", "y/lightning_logs/a/v", "b/v")
    ]
    assert named("/x/copied/version_0") == ["copied/version_0"]


def test_checkpoints_on_their_own_are_compared_too(run, small_run):
    folder = add(small_run, "demo/version_0")
    shutil.copy(folder / "checkpoints/last.ckpt", folder / "checkpoints/best.ckpt")
    shutil.copy(folder / "checkpoints/last.ckpt", "alone.ckpt")
    words = ["alone.ckpt", str(folder / "checkpoints/best.ckpt"), str(folder)]
    outcome = run("compare", "--output", "page", *words)
    assert outcome.code == 0, outcome.err
    assert outcome.out.endswith("comparison: page/index.html\n")
    rows = json.loads(Path("page/runs.json").read_text())
    assert [row["run"] for row in rows] == ["alone.ckpt", "demo/version_0/checkpoints/best.ckpt", "demo/version_0"]
    assert [row["remarks"] for row in rows] == [["a checkpoint on its own"], ["a checkpoint on its own"], []]
    assert [row["planned_epochs"] for row in rows] == [None, 2, 2]
    assert {(row["network"], row["epochs"], row["parameters"]) for row in rows} == {
        ("custom_resnet, width 8", 2, rows[2]["parameters"])
    }
    pairs = read_json(Path("page/differences.json"))["pairs"]
    assert [(pair["only_first"], pair["only_second"], pair["holm"]) for pair in pairs] == [(0, 0, 1.0)] * 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "lightning_logs: no such run folder, checkpoint, or folder that contains runs"),
        (["empty"], "empty: this folder contains no run"),
        (["empty", "nowhere"], "empty: this folder contains no run"),
        (["bad.ckpt"], "bad.ckpt is truncated or not a checkpoint"),
        ([str(REFERENCE), "--output", "bad.ckpt/page"], "cannot write to --output bad.ckpt/page"),
        ([str(REFERENCE), "--data.source", "nope"], "received nope"),
    ],
)
def test_a_mistake_is_one_line(run, words, message):
    Path("empty").mkdir()
    Path("bad.ckpt").write_text("x")
    outcome = run("compare", *words)
    assert outcome.code == 2
    assert len(outcome.err.strip().splitlines()) == 1
    assert message in outcome.err
    assert "--ckpt_path" not in outcome.err


def test_help_documents_the_positional_runs(run):
    assert re.search(r"runs +Folders of runs, checkpoints", run("compare", "--help").out)


# ------------------------------------------------------------------------------------------------------ significance


@pytest.fixture(scope="module")
def good_run(tmp_path_factory) -> Path:
    """The folder of a run accurate enough, on any processor, to differ significantly from a worse one."""
    words = ["--data.batch_size", "32", "--model.lr_max", "1e-2", "--model.lr_min", "1e-3"]
    return train(tmp_path_factory.mktemp("good_run"), *words)


def test_two_runs_are_compared_image_by_image_and_images_are_read_once(run, good_run, monkeypatch):
    add(good_run, "demo/version_0")
    worsen(add(good_run, "demo/version_1"))
    add(REFERENCE, "reference")
    read, load = [], sources.load
    monkeypatch.setattr(sources, "load", lambda *args: read.append(args) or load(*args))
    outcome = run("compare")
    assert read == [("digits", None, "test", 32)]
    (pair,) = read_json(PAGE / "differences.json")["pairs"]
    correct = pair["both"] + pair["only_first"], pair["both"] + pair["only_second"]
    assert sum(pair[cell] for cell in ("both", "only_first", "only_second", "neither")) == 360
    assert run("test", "--ckpt_path", "lightning_logs/demo/version_0").code == 0
    assert run("test", "--ckpt_path", "lightning_logs/demo/version_1").code == 0
    assert correct == tuple(read_json(LOGS / f"demo/version_{n}/test.json")["test/correct"] for n in (0, 1))
    assert pair["difference"] == pytest.approx((correct[0] - correct[1]) / 360)
    assert pair["p_value"] == pair["holm"] < 0.05
    (row,) = csv.DictReader((PAGE / "differences.csv").open())
    assert row["verdict"] == "differ: p < 0.0001"
    assert "p by Holm" not in row
    assert "demo/version_0 and demo/version_1: differ: p < 0.0001; +" in outcome.out


def test_several_pairs_are_corrected_and_equal_predictions_do_not_differ(run, good_run):
    for number in range(3):
        add(good_run, f"demo/version_{number}")
    worsen(LOGS / "demo/version_2")
    outcome = run("compare")
    pairs = read_json(PAGE / "differences.json")["pairs"]
    assert [pair["holm"] / pair["p_value"] for pair in pairs] == pytest.approx([1, 3, 3])
    assert "no significant difference on 360 images; +0.00" in outcome.out
    assert "differ: p < 0.0001 (Holm)" in outcome.out
    assert "the probability of even one such error in these 3 tests to 5%" in section("differences")
    assert "p by Holm" in section("differences")


def test_many_pairs_are_only_counted_on_the_terminal(run, small_run):
    for number in range(6):
        add(small_run, f"demo/version_{number}")
    assert "\n0 of 15 pairs of runs differ\n" in run("compare").out
    assert section("differences").count("no significant difference on 360 images") == 15


def test_runs_that_cannot_be_evaluated_are_named_with_the_reason(run, small_run):
    make_tree(Path("tree"))
    for number in range(5):
        add(small_run, f"demo/version_{number}")
    (LOGS / "demo/version_2/checkpoints/last.ckpt").write_bytes(b"x")
    for number, root in ((3, "moved"), (4, "moved")):
        path = LOGS / f"demo/version_{number}/checkpoints/last.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["preprocessing"]["source"] = "folder"
        torch.save(checkpoint, path)
        config = LOGS / f"demo/version_{number}/config.yaml"
        config.write_text(config.read_text().replace("root: null", f"root: {root}"))
    outcome = run("compare", "lightning_logs", str(REFERENCE))
    assert outcome.code == 0, outcome.err
    numbers = read_json(PAGE / "differences.json")
    assert [(pair["first"], pair["second"]) for pair in numbers["pairs"]] == [("demo/version_0", "demo/version_1")]
    reasons = numbers["without_answers"]
    assert list(reasons) == ["demo/version_2", "reference", "demo/version_3", "demo/version_4"]
    assert "last.ckpt is truncated or not a checkpoint" in reasons["demo/version_2"]
    assert (
        reasons["demo/version_3"]
        == reasons["demo/version_4"]
        == ("root moved does not exist; it must be a directory or a .zip")
    )
    assert "Not tested: demo/version_3, demo/version_4: root moved does not exist;" in section("differences")
    outcome = run("compare", "--data.source", "folder", "--data.root", "tree")
    assert "its classes are ['0', '1', " in outcome.out
    assert "those of the images ['cat', 'dog', 'owl']" in section("differences").replace("&#39;", "'")


def test_runs_with_different_test_images_are_not_evaluated(run, small_run, monkeypatch):
    monkeypatch.setattr(sources, "load", pytest.fail)
    add(small_run, "demo/version_0")
    assert "a test needs two checkpoints with the same test images" in run("compare").out
    checkpoint = torch.load(add(small_run, "demo/version_1") / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["preprocessing"]["source"] = "cifar10"
    torch.save(checkpoint, LOGS / "demo/version_1/checkpoints/last.ckpt")
    outcome = run("compare")
    assert outcome.code == 0, outcome.err
    assert "demo/version_0, demo/version_1: no other run was tested on the same images" in outcome.out


# --------------------------------------------------------------------------------------------------- curves and text


def test_many_runs_differ_in_color_or_dashes():
    compared = [RunRecord.from_folder(REFERENCE, f"run ${number}$") for number in range(14)]
    compared.append(RunRecord("empty", Path("empty"), {}, {}, [], {}, []))
    curves = overlaid_curves(compared)
    accuracy, loss, _ = curves.figure.axes
    assert len({(line.get_color(), line.get_linestyle()) for line in accuracy.lines}) == 14
    rows = list(csv.DictReader((REFERENCE / "metrics.csv").open()))
    assert list(accuracy.lines[3].get_ydata()) == [float(row["test/acc"]) for row in rows]
    assert list(loss.lines[3].get_ydata()) == [float(row["train/loss"]) for row in rows]
    (legend,) = curves.figure.legends
    assert [text.get_text() for text in legend.get_texts()][13] == r"run \$13\$"
    assert curves.text == ["Without curves: empty."]
    curves.figure.draw_without_rendering()
    ends = legend.get_window_extent()
    assert ends.x0 >= 0
    assert ends.x1 <= curves.figure.bbox.x1
    assert not any(ends.overlaps(axes.get_tightbbox()) for axes in curves.figure.axes)


def test_runs_without_curves():
    assert "no run has an epochs.csv" in overlaid_curves([RunRecord("a", Path("a"), {}, {}, [], {}, [])]).missing


def test_the_text_table_drops_columns_to_fit():
    row = {"run": "a" * 60, "test accuracy": "90.00%", "note": "n" * 200, "network": "b" * 30, "parameters": 1234567}
    row |= {"epochs": "3 of 24", "recipe": "c" * 40}
    lines = text_table([row, {**row, "run": "short", "parameters": "-"}]).splitlines()
    assert max(map(len, lines)) <= 120
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["run", "test", "accuracy", "network", "epochs"]
    assert "1,234,567" in text_table([row], width=300)
