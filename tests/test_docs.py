"""The documents: their commands exist, with the flags that they use, and so do their links and Python names."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import customresnet

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FLAG = r"(?<![\w-])--[a-z][\w.-]*"


@pytest.fixture
def flags_of(run):
    """The flags that a command's help lists, and those of all commands."""

    @cache
    def flags(command: str) -> set[str]:
        outcome = run(command, "--help")
        assert outcome.code == 0, outcome.err
        return set(re.findall(FLAG, outcome.out + run("--help").out))

    return flags


def test_commands_and_flags_exist(flags_of):
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8").replace("\\\n", " ")
        for command, rest in re.findall(r"python -m customresnet ([a-z-]+)([^\n`#|]*)", text):
            used = {flag for flag in re.findall(FLAG, rest) if ".init_args." not in flag}
            assert used <= flags_of(command), f"{document.name}: {command}{rest}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def test_the_python_example_uses_names_that_exist():
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert example
    imports = [node for node in ast.walk(ast.parse(example[1])) if isinstance(node, ast.ImportFrom)]
    assert {alias.name for node in imports for alias in node.names} <= set(customresnet.__all__)
