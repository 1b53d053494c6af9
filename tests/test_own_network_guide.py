"""The guide to own networks and images works as written: its files and commands are taken from the page and run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs/own-network.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```(?:python|yaml)\n# (\S+)\n(.*?)```", GUIDE, re.S))
COMMANDS = [line for block in re.findall(r"```\n(python .*?)```", GUIDE, re.S) for line in block.splitlines()]


@pytest.mark.slow
def test_every_file_and_command_of_the_guide_works(tmp_path: Path) -> None:
    assert set(FILES) == {"make_shapes.py", "tiny_net.py", "shapes.yaml", "train_shapes.py"}
    assert len(COMMANDS) == 5
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in [*COMMANDS, "python train_shapes.py"]:
        words = [sys.executable, *shlex.split(command)[1:]]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=170)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    runs = tmp_path / "lightning_logs"
    flags, recipe, python = (
        json.loads((runs / run / "result.json").read_text())
        for run in ("shapes/version_0", "shapes/version_1", "from-python/version_0")
    )
    assert flags["test/acc"] > 0.75
    assert recipe["test/acc"] == flags["test/acc"]
    assert python["test/images"] == 40
    page = (runs / "shapes/version_0/report/index.html").read_text()
    assert "Grad-CAM" in page
    predicted = json.loads((runs / "shapes/version_0/predictions.json").read_text())
    assert {row["top"][0]["class"] for row in predicted} <= {"circle", "square"}
