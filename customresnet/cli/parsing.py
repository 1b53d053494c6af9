"""Flags from a command's signature, one-line errors that name the flag, and commands that need no Trainer."""

import argparse
import inspect
import re
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import docstring_parser
import jsonargparse
import yaml

from customresnet.runtime.errors import UserError
from customresnet.runtime.recipes import check_yaml

_load_yaml = jsonargparse.get_loader("yaml")


def load_bounded(text: str) -> Any:
    """jsonargparse's YAML loader within the bounds of recipes: it reads every file and every flag's value."""
    check_yaml(text)
    try:
        return _load_yaml(text)
    except (ValueError, OverflowError, RecursionError) as error:  # a number that Python cannot represent
        raise yaml.YAMLError(str(error)) from error


jsonargparse.set_loader("yaml", load_bounded, exceptions=(yaml.YAMLError,))


def add_command_arguments(
    parser: jsonargparse.ArgumentParser, function: Callable[..., Any], skip: set[str]
) -> list[str]:
    """Add a command's parameters as flags.

    jsonargparse covers most. In addition, ``*words`` are positional, a list takes several words, and a bool that is
    False by default is a switch. Parameters in ``skip`` are not flags.

    Returns:
        The names of the parameters added.
    """
    documented = {entry.arg_name: entry.description for entry in docstring_parser.parse(function.__doc__ or "").params}
    added = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in skip:
            continue
        added.append(name)
        if parameter.kind is parameter.VAR_POSITIONAL:
            parser.add_argument(name, nargs="*", default=[], help=documented.get(name))
        elif parameter.default is False:
            parser.add_argument(f"--{name}", action="store_true", help=documented.get(name))
        elif str(parameter.annotation).startswith("list["):
            parser.add_argument(f"--{name}", nargs="+", action="extend", help=documented.get(name))
        else:
            continue
        skip = skip | {name}
    parser.add_function_arguments(function, as_group=False, skip=set(skip))
    return added


def in_one_line(message: str) -> str:
    """jsonargparse's message about a value in one line: the flag, what it takes and what it received."""
    if missing := re.search(r"arguments are required: (\w+)", message):
        return f"--{missing[1]} is required"
    key = re.search(r'Parser key "([^"]+)"', message)
    received = re.search(r"(?:Given value|Got value): (.*)", message)
    problem = re.search(r"Problem with given class_path '([^']+)':\s+(.*)", message)
    if problem and not (key and received):
        return f"{problem[1]}: {problem[2]}"
    if not (key and received):
        return " ".join(message.split())
    subtypes = re.search(r"Subtypes: \[(.*)\]", message)
    taken = subtypes[1] if subtypes else ", ".join(re.findall(r"Expected an? (.+?)(?:\. Got.*)?$", message, re.M))
    taken = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", taken).replace("NoneType", "null")
    taken = re.sub(r"(?:typing\.)?Literal\[(.*?)\]", r"one of \1", taken)
    return f"--{key[1]} takes {taken}; received {received[1]}" + (f" ({problem[2]})" if problem else "")


def with_flags(message: str, parser: jsonargparse.ArgumentParser) -> str:
    """Replace each `` `parameter` `` in a message by its flag: `` `batch_size` `` by ``--data.batch_size``.

    A name that belongs to no flag of the parser keeps its backticks.
    """
    keys = list(parser.get_defaults(skip_validation=True).keys())

    def flag(match: re.Match[str]) -> str:
        name = match[1]
        found = [key for key in keys if key == name or key.endswith(f".{name}")]
        return f"--{min(found, key=lambda key: key.count('.'))}" if found else match[0]

    return re.sub(r"`([A-Za-z_][\w.]*)`", flag, message)


def split_flags(words: list[str], belongs: Callable[[str], bool]) -> tuple[list[tuple[str, str]], list[str]]:
    """The flags that ``belongs`` accepts, each with its value, and all other words."""
    found: list[tuple[str, str]] = []
    others: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, equals, after = word.partition("=")
        if belongs(flag) and (value := after if equals else next(rest, None)) is not None:
            found.append((flag, value))
        else:
            others.append(word)
    return found, others


def run_plain(name: str, function: Callable[..., Any], words: list[str]) -> None:
    """Parse the flags of a command that needs no Trainer, and call its function."""
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
        raise type(error)(with_flags(str(error), parser)) from error


def is_object(annotation: Any) -> bool:
    """Whether a parameter is an object that flags build, such as the data module."""
    ours = inspect.isclass(annotation) and annotation.__module__.startswith("customresnet.")
    return ours and not is_dataclass(annotation)
