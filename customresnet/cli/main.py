"""The command line: find the command, run it, and show errors in one line."""

import ast
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from customresnet.runtime.errors import UserError
from customresnet.runtime.trust import start_command

WITH_TRAINER = ("fit", "validate", "test", "lr-find", "lr-sweep", "schedule")
"""The commands that take a trainer, a model and data, which LightningCLI builds from flags."""
COMMANDS = (*WITH_TRAINER, "predict", "report", "compare", "summary", "dataset", "export")


def main(args: list[str] | None = None) -> None:
    """Run the command in ``args`` or ``sys.argv``. A UserError becomes one line on stderr and exit code 2."""
    argv = sys.argv[1:] if args is None else args
    debug, trusted = "--debug" in argv, "--trust" in argv
    argv = [word for word in argv if word not in ("--debug", "--trust")]
    start_command(argv, everything=trusted)
    try:
        if argv[:1] in (["-h"], ["--help"]):
            print(help_text())
        elif argv[:1] == ["--version"]:
            print(f"customresnet {importlib.import_module('customresnet').__version__}")
        else:
            run_command(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # discard what is not flushed yet
        sys.exit(1)
    except UserError as error:
        if debug:
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:  # outside training, where Lightning handles it
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def run_command(argv: list[str]) -> None:
    """Run the command that the first word names, with the flags that follow."""
    if not argv or argv[0] not in COMMANDS:
        received = f"; received {argv[0]}" if argv else ""
        raise UserError(f"the first word must be a command: {', '.join(COMMANDS)}{received}")
    name, words = argv[0], argv[1:]
    function = command_function(name)
    if name in WITH_TRAINER:
        from customresnet.cli.lightning import run_with_trainer as run
    else:
        from customresnet.cli.parsing import run_plain as run
    run(name, function, words)


def module_name(command: str) -> str:
    """The module of ``customresnet.commands`` that holds a command's function."""
    return "evaluate" if command in ("validate", "test") else command.replace("-", "_")


def command_function(name: str) -> Callable[..., Any]:
    """Import a command's module, and return its function."""
    module = importlib.import_module(f"customresnet.commands.{module_name(name)}")
    return getattr(module, name.replace("-", "_"))


def help_text() -> str:
    """The table of commands, each with the first line of its docstring. No command is imported."""
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:<{width}}  {summary_line(name)}" for name in COMMANDS)
    return f"""usage: customresnet COMMAND [flags]

Train, evaluate and use CustomResNet on CIFAR-10.

{table}

`customresnet COMMAND --help` lists a command's flags. --version prints the version.
With --debug, errors show a traceback. With --trust, files such as recipes and checkpoints may name any code."""


def summary_line(name: str) -> str:
    """The first line of a command's docstring, read from its file."""
    path = Path(__file__).parents[1] / "commands" / f"{module_name(name)}.py"
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    return (ast.get_docstring(functions[name.replace("-", "_")]) or "").splitlines()[0]
