"""The fault harness in its quick form; docs/reliability.md has the figures of the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_five_killed_processes_leave_runs_that_resume_to_the_same_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "experiments.faults", "--kills", "5", "--seed", "1", "--work", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "every run ended as if undisturbed" in done.stdout
