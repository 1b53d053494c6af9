"""How long commands take to start, relative to the bare imports that they need."""

import resource
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

OURS = (sys.executable, "-m", "customresnet")


def processor_seconds(command: tuple[str, ...], folder: Path) -> float:
    """Processor time of a process, which other work on the machine lengthens less than its time on the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.slow
def test_commands_start_about_as_fast_as_their_imports(tmp_path):
    Image.fromarray(np.zeros((32, 32, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    commands = {
        "torch": (sys.executable, "-c", "import torch"),
        "lightning": (sys.executable, "-c", "import pytorch_lightning.cli"),
        "--help": (*OURS, "--help"),
        "fit --help": (*OURS, "fit", "--help"),
        "summary": (*OURS, "summary"),
        "predict": (*OURS, "predict", "--ckpt_path", "pretrained", "--images", "a.png"),
    }
    rounds = [{name: processor_seconds(words, tmp_path) for name, words in commands.items()} for _ in range(3)]
    seconds = {name: statistics.median(times[name] for times in rounds) for name in commands}
    assert seconds["--help"] <= 0.15 * seconds["lightning"]
    assert seconds["fit --help"] <= 1.2 * seconds["lightning"]
    assert seconds["summary"] <= 1.6 * seconds["torch"]
    assert seconds["predict"] <= 1.6 * seconds["torch"]
