"""The harness of damaged and hostile files, with few cases."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_damaged_files_end_in_one_message_or_right():
    command = [sys.executable, "-m", "experiments.damage", "--seed", "5", "--count", "24", "--workers", "1"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "| all | 24 |" in done.stdout
