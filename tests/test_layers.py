"""Imports between packages go one way, and import-linter finds one that does not."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package, with the project's contracts beside it."""
    shutil.copytree(ROOT / "customresnet", tmp_path / "customresnet", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_keeps_its_contracts():
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("importer", ["models.custom_resnet", "analysis.page"])  # a lower layer, and the same layer
def test_an_import_against_the_direction_is_found(copy, importer):
    with (copy / "customresnet" / importer.replace(".", "/")).with_suffix(".py").open("a", encoding="utf-8") as file:
        file.write("\nimport customresnet.training.classifier\n")
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout
    assert f"customresnet.{importer} -> customresnet.training.classifier" in done.stdout


def test_a_new_package_must_be_placed_in_a_layer(copy):
    (copy / "customresnet" / "helpers").mkdir()
    (copy / "customresnet" / "helpers" / "__init__.py").touch()
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout
    assert "not listed as layers:" in done.stdout
    assert "- customresnet.helpers" in done.stdout
