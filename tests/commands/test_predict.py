"""The predict command: the classes of image files of any size."""

import os
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

from tests.conftest import one_line, read_json


def test_predicts_images_of_any_size_and_names_unreadable_ones(run, small_run):
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
    Path("text.png").write_text("x")
    one_line(
        run("predict", "--ckpt_path", str(small_run), "--images", "pictures/0.png", "text.png"),
        "cannot read the image text.png",
    )
