"""Command-line parsers whose errors are exceptions in one line, so that every mistake is shown alike."""

import re
from typing import NoReturn

import jsonargparse

from customresnet.runtime.errors import UserError


class RaisingParser(jsonargparse.ArgumentParser):
    """A parser that raises its errors."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(in_one_line(message)) from ex


def in_one_line(message: str) -> str:
    """What jsonargparse says of a value in many lines: the flag, what it takes, and what it received."""
    key = re.search(r'Parser key "([^"]+)"', message)
    received = re.search(r"(?:Given value|Got value): (.*)", message)
    if not (key and received):
        return " ".join(message.split())
    subtypes = re.search(r"Subtypes: \[(.*)\]", message)
    taken = subtypes[1] if subtypes else ", ".join(re.findall(r"Expected an? (.+?)(?:\. Got.*)?$", message, re.M))
    taken = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", taken).replace("NoneType", "null")
    taken = re.sub(r"(?:typing\.)?Literal\[(.*?)\]", r"one of \1", taken)
    problem = re.search(r"Problem with given class_path .*:\s+(.*)", message)
    return f"--{key[1]} takes {taken}; received {received[1]}" + (f" ({problem[1]})" if problem else "")
