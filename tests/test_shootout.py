"""The shoot-out: each recipe cut alike, gone on with where it stopped, compared at the end."""

import csv
import sys
from pathlib import Path

import pytest
import torch

from customresnet.runs import folders as runs
from experiments import shootout
from tests.conftest import read_json

SMALL = ["--data.source", "digits", "--data.batch_size", "64", "--model.width", "8"]


@pytest.mark.parametrize(("recipe", "peak"), [("eva4-s11", 1.25), ("eva7-s9", 1.2), ("advanced", 1.8)])
def test_the_peak_keeps_its_share_of_the_run(recipe, peak):
    flags = shootout.Shootout("shootout", 6, 10_000, []).recipe_flags(recipe)
    assert float(flags[flags.index("--model.peak_epoch") + 1]) == pytest.approx(peak)


def test_it_trains_all_alike_tests_once_and_is_resumed(run, monkeypatch, capsys):
    done: list[tuple[str, ...]] = []

    def command(*words: str) -> None:
        outcome = run(*words)
        done.append(words)
        assert outcome.code == 0, outcome.err

    monkeypatch.setattr(shootout, "command", command)
    words = ["--epochs", "2", "--train_size", "128", "--recipes", "eva4-s11", "era-s10-b", *SMALL]
    monkeypatch.setattr(sys, "argv", ["shootout.py", *words])
    shootout.main()
    assert [first for first, *_ in done] == ["fit", "fit", "compare"]
    folders = [Path("lightning_logs", f"shootout-{recipe}", "version_0") for recipe in ("eva4-s11", "era-s10-b")]
    assert done[-1][1:] == tuple(map(str, folders))
    for folder in folders:
        rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
        assert [row["test/acc"] != "" for row in rows] == [False, True]
        assert read_json(folder / "result.json")["test/images"] == 360
        assert read_json(folder / "result.json")["steps"] == 4  # 128 images in batches of 64
    cut = folders[1]
    (cut / runs.RESULT).unlink()  # as if stopped after the first epoch
    checkpoint = torch.load(cut / runs.CHECKPOINTS / runs.LAST, weights_only=True)
    assert checkpoint["epoch"] == 1
    done.clear()
    monkeypatch.setattr(shootout, "command", lambda *words: done.append(words))
    shootout.main()
    assert done[0][:3] == ("fit", "--ckpt_path", str(cut))
    assert [first for first, *_ in done] == ["fit", "compare"]
    monkeypatch.setattr(sys, "argv", ["shootout.py", *words, "--epochs", "3"])
    with pytest.raises(SystemExit):
        shootout.main()
    assert "holds a shoot-out on other terms; give this one another --name" in capsys.readouterr().err
