"""The parts of the Makefile that install nothing."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def make(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *words], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_help_describes_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony
    shown = make().stdout
    for target in phony[1].split():
        assert re.search(rf"^  make {target} +\w", shown, re.M), target


def test_an_old_python_is_an_error_in_one_line(tmp_path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$*" in *--version*) echo Python 3.9.1;; *) exit 1;; esac\n')
    old.chmod(0o755)
    done = make("demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode == 2
    assert (
        f"Python 3.11 or newer is required; {old} is Python 3.9.1. Choose another one: make demo PYTHON=python3.12"
        in done.stdout
    )
    assert not (tmp_path / "venv").exists()


def test_setup_runs_only_once(tmp_path):
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / ".installed").touch()
    assert "pip" not in make("--dry-run", "setup", f"VENV={venv}").stdout
    (venv / ".installed").unlink()
    planned = make("--dry-run", "setup", f"VENV={venv}", "PIP_ARGS=--no-cache-dir").stdout
    assert "--constraint constraints.txt --no-cache-dir" in planned
    assert "downloads about 3 GB" in planned


def test_setup_can_install_the_oldest_versions(tmp_path):
    planned = make("--dry-run", "setup", f"VENV={tmp_path / 'venv'}", "CONSTRAINTS=constraints-oldest.txt").stdout
    assert "--constraint constraints-oldest.txt" in planned
