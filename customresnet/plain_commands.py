"""The commands that need no Trainer: a function each, whose signature is the command's flags."""

import importlib
import inspect
from dataclasses import dataclass

from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.parsing import Raising


@dataclass(frozen=True)
class PlainCommand:
    """Where a command's function lives; it is imported when the command runs."""

    module: str
    function: str
    help: str


PLAIN_COMMANDS = {
    "report": PlainCommand("customresnet.analysis.report", "report", "Explain a run on one page."),
    "summary": PlainCommand("customresnet.analysis.architecture", "summary", "Print a network layer by layer."),
    "dataset": PlainCommand("customresnet.analysis.dataset", "dataset", "Show on one page what is in the data."),
}


def run_plain_command(name: str, words: list[str]) -> None:
    """Parse the flags of a command and call its function."""
    command = PLAIN_COMMANDS[name]
    function = getattr(importlib.import_module(command.module), command.function)
    parser = Raising(prog=f"customresnet {name}", description=command.help)
    whole = [p.name for p in inspect.signature(function).parameters.values() if p.annotation is CIFAR10DataModule]
    for parameter in whole:  # its options, not a choice of classes
        parser.add_class_arguments(CIFAR10DataModule, parameter)
    parser.add_function_arguments(function, skip=set(whole))
    function(**vars(parser.instantiate(parser.parse_args(words))))
