"""The predict command: the classes of image files of any size."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from customresnet.commands import predict as command
from tests.conftest import one_line, read_json


def test_predicts_images_of_any_size(run, small_run):
    os.mkdir("pictures")
    digits = load_digits()
    for number in range(10):
        picture = Image.fromarray((digits.images[number] * 15.9).astype("uint8"))
        picture.resize((48, 32) if number == 0 else (32, 32), Image.Resampling.BICUBIC).save(f"pictures/{number}.png")
    outcome = run("predict", "--ckpt_path", str(small_run), "--images", "pictures", "--top_k", "2")
    assert outcome.code == 0
    rows = read_json(small_run / "predictions.json")
    assert [row["image"] for row in rows] == [f"pictures/{n}.png" for n in range(10)]
    assert all(len(row["top"]) == 2 and row["top"][0]["probability"] >= row["top"][1]["probability"] for row in rows)
    assert "from 48x32, resized and center-cropped to 32x32" in outcome.out
    assert outcome.out.count("resized") == 1
    one_line(run("predict", "--ckpt_path", str(small_run), "--images", "nope.png"), "--images nope.png")
    half = ["--data.mean", "[0.5, 0.5, 0.5]"]
    one_line(run("predict", "--ckpt_path", str(small_run), "--images", "pictures", *half), "--data.mean")


@pytest.fixture
def predict(run, small_run):
    """Run predict with a copy of the small run; return its outcome and the images in predictions.json."""
    folder = Path(shutil.copytree(small_run, "trained", ignore=shutil.ignore_patterns("predictions.json")))

    def command(*words: str):
        outcome = run("predict", "--ckpt_path", str(folder), *words)
        results = folder / "predictions.json"
        return outcome, [row["image"] for row in read_json(results)] if results.is_file() else None

    return command


def draw(*paths: str, size: tuple[int, int] = (32, 32)) -> None:
    """Write random images."""
    for seed, path in enumerate(map(Path, paths)):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def test_a_broken_file_is_named_and_the_others_are_predicted(predict):
    draw("a.png", "c.jpg")
    Path("b.png").write_text("no image")
    Path("d.png").write_bytes(Path("a.png").read_bytes()[:-100])
    outcome, images = predict("--images", "a.png", "b.png", "c.jpg", "d.png")
    assert outcome.code == 1
    assert images == ["a.png", "c.jpg"]
    assert [line.split()[0] for line in outcome.out.splitlines()[:2]] == ["a.png", "c.jpg"]
    *skipped, error = outcome.err.splitlines()
    assert len(skipped) == 2
    assert "cannot read the image b.png: " in skipped[0]
    assert "cannot read the image d.png: " in skipped[1]
    assert error == "error: 2 of 4 images cannot be read"
    assert "object at" not in outcome.err


def test_results_are_never_those_of_an_earlier_call(predict):
    draw("a.png")
    assert predict("--images", "a.png")[1] == ["a.png"]
    Path("b.png").write_bytes(b"")
    outcome, images = predict("--images", "b.png")
    assert (outcome.code, images) == (1, [])


def test_a_missing_file_is_an_error_before_any_work(predict):
    draw("a.png")
    outcome, images = predict("--images", "a.png", "gone.png")
    one_line(outcome, "--images gone.png: no such file or directory")
    assert images is None


@pytest.mark.parametrize(
    "words", [["--images", "a", "--images", "b"], ["--images", "a", "b"], ["--images=a", "--images=b"]]
)
def test_images_may_be_given_several_times(predict, words):
    draw("a/1.png", "b/2.png")
    assert predict(*words)[1] == ["a/1.png", "b/2.png"]


def test_folders_are_searched_for_images_of_any_format_that_are_not_hidden(predict):
    draw("p/1.png", "p/deep/er/2.webp", "p/3.BMP", "p/4.tif", "p/5.jpg/6.gif")
    draw("p/.git/x.png", "p/@eaDir/x.png", "p/__MACOSX/x.png", "p/._1.png")
    for name in ("notes.txt", "phone.heic", "b.heic", ".DS_Store", "README"):
        Path("p", name).write_text("x")
    outcome, images = predict("--images", "p")
    assert outcome.code == 0, outcome.err
    assert images == ["p/1.png", "p/3.BMP", "p/4.tif", "p/5.jpg/6.gif", "p/deep/er/2.webp"]
    assert outcome.err == "warning: not read in p: 2 .heic, 1 .txt, 1 without suffix\n"
    os.mkdir("q")
    Path("q/a.heic").write_text("x")
    one_line(predict("--images", "q")[0], "--images q: no image in this directory, only 1 .heic")


def test_links_and_special_files_do_not_stop_it(predict):
    draw("p/a.png", "elsewhere/b.png")
    Path("p/loop").symlink_to(".")
    Path("p/linked").symlink_to("../elsewhere")
    Path("p/dangling.png").symlink_to("nowhere")
    os.mkfifo("p/pipe.png")
    outcome, images = predict("--images", "p")
    assert images == ["p/a.png", "p/linked/b.png"]
    assert "2 .png that is no regular file" in outcome.err
    outcome, images = predict("--images", "p/a.png", "p/pipe.png")
    assert (outcome.code, images) == (1, ["p/a.png"])
    assert "cannot read the image p/pipe.png: it is no regular file" in outcome.err


def test_more_classes_than_there_are_shows_all_and_names_them(predict):
    draw("a.png")
    outcome, _ = predict("--images", "a.png", "--top_k", "11")
    assert outcome.code == 0
    assert "only 10 classes, fewer than top_k 11: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9" in outcome.err
    assert outcome.out.splitlines()[0].count("%") == 10


def test_names_in_any_encoding_are_shown(predict):
    draw("a.png")
    os.rename("a.png", b"caf\xe9.png")
    outcome, images = predict("--images", ".")
    assert outcome.code == 0
    assert os.fsencode(images[0]) == b"caf\xe9.png"
    assert outcome.out.startswith("caf\ufffd.png")


def test_batches_change_nothing(predict, monkeypatch):
    draw(*(f"p/{number}.png" for number in range(7)))
    whole, images = predict("--images", "p")
    Path("p/3.png").write_text("x")
    monkeypatch.setattr(command, "BATCH", 2)
    parts, left = predict("--images", "p")
    assert left == [name for name in images if name != "p/3.png"]
    assert parts.out.splitlines()[:6] == [line for line in whole.out.splitlines()[:7] if "3.png" not in line]


PEAK = """
from pathlib import Path
from customresnet.cli.main import main
peaks = []
for folder in ("few", "many"):
    main(["predict", "--ckpt_path", "trained", "--images", folder])
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peaks.append(int(status["VmHWM"].split()[0]) // 1024)  # MiB
assert peaks[1] < peaks[0] + 80, peaks
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak of a process is read there")
def test_memory_does_not_grow_with_the_number_of_photos(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "trained")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (2000, 1500), "red").save(photo)  # 20 take 180 MB, decoded
    for folder, number in (("few", 4), ("many", 20)):
        (tmp_path / folder).mkdir()
        for index in range(number):
            os.link(photo, tmp_path / folder / f"{index}.png")
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_results_are_written_when_the_reader_of_the_output_is_gone(small_run, tmp_path):
    shutil.copytree(small_run, tmp_path / "trained")
    draw(str(tmp_path / "p/0.png"))
    for number in range(1, 300):
        os.link(tmp_path / "p/0.png", tmp_path / f"p/{number:0100}.png")  # more than a pipe holds
    words = (sys.executable, "-m", "customresnet", "predict", "--ckpt_path", "trained", "--images", "p")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(words, cwd=tmp_path, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert "Traceback" not in done.stderr
    assert len(read_json(tmp_path / "trained/predictions.json")) == 300
