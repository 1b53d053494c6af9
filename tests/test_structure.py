"""How the package is built: public API of Lightning only, no mixins, short files, light imports."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import customresnet

PACKAGE = Path(customresnet.__file__).parent
LIGHTNING = ("pytorch_lightning", "lightning_fabric", "jsonargparse")
MAX_LINES = 250

ALLOWED = {
    # torch has no public function that tells bf16 in hardware from emulated bf16
    ("runtime/precision.py", "_is_mkldnn_bf16_supported"),
    # torch documents how to write a TorchDispatchMode, but has no public module for it
    ("analysis/network/layers.py", "_python_dispatch"),
    # torch can remove only those hooks whose handle was kept
    ("analysis/network/layers.py", "_forward_hooks"),
    ("analysis/network/layers.py", "_forward_pre_hooks"),
}
OVERRIDDEN = {
    # torch's own method imports torch._dynamo, which takes longer than all of `summary`
    "FlopCounter._should_skip_dynamo of TorchDispatchMode",
}
"""Private names of torch that are used or overridden, with the reason. None is of Lightning or jsonargparse."""


def sources() -> Iterator[tuple[str, str]]:
    """Every file of the package, and its text."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), path.read_text(encoding="utf-8")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.AST) -> set[str]:
    """The underscored names that a file defines: functions, methods, fields, and attributes of ``self``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            names.add(node.attr)
    return {name for name in names if is_private(name)}


def is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def own_classes() -> list[type]:
    """Every class that the package defines."""
    modules = [importlib.import_module(info.name) for info in pkgutil.walk_packages([str(PACKAGE)], "customresnet.")]
    found = {value for module in modules for value in vars(module).values() if inspect.isclass(value)}
    return sorted((kind for kind in found if is_own(kind)), key=lambda kind: f"{kind.__module__}.{kind.__qualname__}")


def is_own(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "customresnet"


def package_of(kind: type) -> str:
    return kind.__module__.partition(".")[0]


# ---------------------------------------------------------------------------------------------- names that are private


def imported_private_names() -> set[tuple[str, str]]:
    """The private modules and names that each file imports from other packages."""
    private = set()
    for file, text in sources():
        for node in ast.walk(ast.parse(text)):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("customresnet"):
                names = [*node.module.split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [part for alias in node.names for part in alias.name.split(".")]
            private |= {(file, name) for name in names if is_private(name)}
    return private


def test_no_private_name_of_lightning_is_used():
    trees = {file: ast.parse(text) for file, text in sources()}
    own = set().union(*map(own_names, trees.values()))
    used = imported_private_names()
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                if not (is_self(node.value) and node.attr in own):
                    used.add((file, node.attr))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
                names = [str(argument.value) for argument in node.args[1:2] if isinstance(argument, ast.Constant)]
                used |= {(file, name) for name in names if is_private(name)}
    assert used == ALLOWED


def test_no_class_overrides_a_private_name_of_lightning():
    overridden = set()
    for kind in own_classes():
        bases = [base for base in kind.__mro__ if package_of(base) in (*LIGHTNING, "torch", "torchmetrics")]
        if not bases:
            continue
        names = own_names(ast.parse(textwrap.dedent(inspect.getsource(kind))))
        for base in bases:
            source = inspect.getsource(base)
            overridden |= {
                f"{kind.__name__}.{name} of {base.__name__}"
                for name in names
                if name in vars(base) or re.search(rf"self\.{name}\b", source)
            }
    assert overridden <= OVERRIDDEN  # an older torch has fewer names


# --------------------------------------------------------------------------------------------------------- inheritance


@pytest.mark.parametrize("kind", own_classes(), ids=lambda kind: kind.__name__)
def test_a_class_has_at_most_one_base_from_lightning_and_is_no_mixin(kind):
    family = [base for base in kind.__mro__ if is_own(base)]
    from_lightning = {base for own in family for base in own.__bases__ if package_of(base) in LIGHTNING}
    assert len(from_lightning) <= 1
    assert len(kind.__bases__) == 1 or not any(is_own(base) for base in kind.__bases__)


# -------------------------------------------------------------------------------------------------- files and imports


def test_files_are_short():
    lengths = {file: len(text.splitlines()) for file, text in sources()}
    assert {file: lines for file, lines in lengths.items() if lines > MAX_LINES} == {}


LIGHT = """
import importlib, sys

def imported(*names):
    return sorted({module.partition(".")[0] for module in sys.modules} & set(names))

lightning = ("pytorch_lightning", "lightning_fabric")
import customresnet
assert not imported(*lightning, "torch", "albumentations"), imported(*lightning, "torch", "albumentations")
for command in ("predict", "summary"):
    importlib.import_module(f"customresnet.commands.{command}")
    assert not imported(*lightning), (command, imported(*lightning))
"""


def test_imports_are_light(tmp_path):
    """The package alone needs no torch, and commands without a Trainer need no Lightning."""
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
