"""Run the commands that need no Trainer. Their flags come from their signatures."""

import argparse
import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import jsonargparse

from customresnet.cli.parsing import add_command_arguments, in_one_line, with_flags
from customresnet.runtime.errors import UserError


def run_plain(name: str, function: Callable[..., Any], words: list[str]) -> None:
    """Parse the flags of a command and call its function."""
    parser = jsonargparse.ArgumentParser(
        prog=f"customresnet {name}", description=(function.__doc__ or "").splitlines()[0], exit_on_error=False
    )
    parameters = inspect.signature(function).parameters
    objects = {p.name: p.annotation for p in parameters.values() if is_object(p.annotation)}
    for parameter, kind in objects.items():
        parser.add_class_arguments(kind, parameter)
    names = add_command_arguments(parser, function, skip=set(objects))
    try:
        given = parser.instantiate(parser.parse_args(words))
    except argparse.ArgumentError as error:
        raise UserError(in_one_line(str(error))) from error
    try:
        several = [value for p in names if parameters[p].kind is inspect.Parameter.VAR_POSITIONAL for value in given[p]]
        named = {p: given[p] for p in (*objects, *names) if parameters[p].kind is not inspect.Parameter.VAR_POSITIONAL}
        function(*several, **named)
    except UserError as error:
        raise UserError(with_flags(str(error), parser)) from error


def is_object(annotation: Any) -> bool:
    """Whether a parameter is an object that flags build, such as the data module."""
    ours = inspect.isclass(annotation) and annotation.__module__.startswith("customresnet.")
    return ours and not is_dataclass(annotation)
