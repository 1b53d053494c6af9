"""The shoot-out: equal conditions for each recipe, resumed when interrupted, compared at the end."""

import csv
import sys
from pathlib import Path

import pytest
import torch

from customresnet.runs import folders
from experiments import shootout
from tests.conftest import read_json

SMALL = ["--data.source", "digits", "--data.batch_size", "64", "--model.width", "8"]


@pytest.mark.parametrize(("recipe", "peak"), [("eva4-s11", 1.25), ("eva7-s9", 1.2), ("advanced", 1.8)])
def test_the_peak_stays_at_the_same_fraction_of_the_run(recipe, peak):
    flags = shootout.Shootout("shootout", 6, 10_000, []).recipe_flags(recipe)
    assert float(flags[flags.index("--model.peak_epoch") + 1]) == pytest.approx(peak)


def test_all_train_under_equal_conditions_are_tested_once_and_resumed(run, monkeypatch, capsys):
    done: list[tuple[str, ...]] = []

    def command(*words: str) -> None:
        outcome = run(*words)
        done.append(words)
        assert outcome.code == 0, outcome.err

    monkeypatch.setattr(shootout, "run_command", command)
    words = ["--epochs", "2", "--train_size", "128", "--recipes", "eva4-s11", "era-s10-b", *SMALL]
    monkeypatch.setattr(sys, "argv", ["shootout.py", *words])
    shootout.main()
    assert [first for first, *_ in done] == ["fit", "fit", "compare"]
    trained = [Path("lightning_logs", f"shootout-{recipe}", "version_0") for recipe in ("eva4-s11", "era-s10-b")]
    assert done[-1][1:] == tuple(map(str, trained))
    for folder in trained:
        rows = list(csv.DictReader((folder / "epochs.csv").read_text().splitlines()))
        assert [row["test/acc"] != "" for row in rows] == [False, True]
        assert read_json(folder / "result.json")["test/images"] == 360
        assert read_json(folder / "result.json")["steps"] == 4  # 128 images in batches of 64
    stopped = trained[1]
    (stopped / folders.RESULT).unlink()  # as if stopped after the first epoch
    checkpoint = torch.load(folders.last_checkpoint(stopped), weights_only=True)
    assert checkpoint["epoch"] == 1
    done.clear()
    monkeypatch.setattr(shootout, "run_command", lambda *words: done.append(words))
    shootout.main()
    assert done[0][:3] == ("fit", "--ckpt_path", str(stopped))
    assert [first for first, *_ in done] == ["fit", "compare"]
    monkeypatch.setattr(sys, "argv", ["shootout.py", *words, "--epochs", "3"])
    with pytest.raises(SystemExit):
        shootout.main()
    assert "holds a shoot-out with other settings; choose another --name" in capsys.readouterr().err
