"""The commands that need no Trainer: a function each, whose signature is the command's flags."""

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import docstring_parser

from customresnet.cli.parsing import RaisingParser
from customresnet.data.datamodule import CIFAR10DataModule


@dataclass(frozen=True)
class PlainCommand:
    """Where a command's function lives; it is imported when the command runs."""

    module: str
    function: str
    help: str


PLAIN_COMMANDS = {
    "report": PlainCommand("customresnet.commands.report", "report", "Explain a run on one page."),
    "compare": PlainCommand("customresnet.commands.compare", "compare", "Compare runs on one page."),
    "summary": PlainCommand("customresnet.analysis.network.architecture", "summary", "Print a network layer by layer."),
    "dataset": PlainCommand("customresnet.commands.dataset", "dataset", "Show on one page what is in the data."),
}


def run_plain_command(name: str, words: list[str]) -> None:
    """Parse the flags of a command and call its function."""
    command = PLAIN_COMMANDS[name]
    function = getattr(importlib.import_module(command.module), command.function)
    parser = RaisingParser(prog=f"customresnet {name}", description=command.help)
    parameters = inspect.signature(function).parameters.values()
    whole = [p.name for p in parameters if p.annotation is CIFAR10DataModule]
    for parameter in whole:  # its options, not a choice of classes
        parser.add_class_arguments(CIFAR10DataModule, parameter)
    several = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    for parameter in several:  # jsonargparse passes over *args
        parser.add_argument(parameter, nargs="*", default=[], help=_documented(function, parameter))
    parser.add_function_arguments(function, skip=set(whole))
    given = vars(parser.instantiate(parser.parse_args(words)))
    positional = [value for parameter in several for value in given.pop(parameter)]
    function(*positional, **given)


def _documented(function: Callable[..., Any], parameter: str) -> str | None:
    """What a docstring says of a parameter."""
    documented = docstring_parser.parse(function.__doc__ or "").params
    return next((entry.description for entry in documented if entry.arg_name == parameter), None)
