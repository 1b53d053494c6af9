"""pyproject.toml declares what the code imports, and the constraints files follow it."""

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RUNTIME = [Requirement(line) for line in PROJECT["dependencies"]]
DEV = [Requirement(line) for line in PROJECT["optional-dependencies"]["dev"]]
OWN = ("customresnet", "benchmarks", "experiments", "tests")


def names(requirements: list[Requirement]) -> set[str]:
    return {canonicalize_name(requirement.name) for requirement in requirements}


def pins(file: str) -> dict[str, Version]:
    lines = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def imports(folder: str) -> Iterator[tuple[str, str]]:
    """Every third-party package that a folder imports, with the file that does."""
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                modules = [node.module]
            for module in modules:
                package = module.partition(".")[0]
                if package not in sys.stdlib_module_names and package not in OWN:
                    yield package, str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", OWN)
def test_imports_are_declared(folder):
    distributions = packages_distributions()
    declared = RUNTIME if folder == "customresnet" else RUNTIME + DEV
    for package, file in imports(folder):
        assert {canonicalize_name(name) for name in distributions[package]} & names(declared), f"{file}: {package}"


def test_dependencies_are_imported():
    distributions = packages_distributions()
    imported = {canonicalize_name(name) for package, _ in imports("customresnet") for name in distributions[package]}
    assert names(RUNTIME) - imported == {"tensorboard"}  # which Lightning's logger imports


def test_the_oldest_constraints_are_the_lower_bounds():
    bounds = {
        canonicalize_name(requirement.name): Version(specifier.version)
        for requirement in RUNTIME + DEV
        for specifier in requirement.specifier
        if specifier.operator in (">=", "==")
    }
    assert len(bounds) == len(RUNTIME + DEV)
    assert pins("constraints-oldest.txt") == bounds


def test_the_constraints_pin_every_dependency_within_its_bounds():
    pinned = pins("constraints.txt")
    for requirement in RUNTIME + DEV:
        assert pinned[canonicalize_name(requirement.name)] in requirement.specifier, requirement
    assert pinned.keys().isdisjoint({"customresnet", "triton"})
    assert not [name for name in pinned if name.startswith(("nvidia-", "cuda-"))]
