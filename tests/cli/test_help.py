"""Help texts, and how little of the package the command line imports."""

import re

import pytest

from customresnet.cli.main import COMMANDS, summary_line

WITHOUT_TRAINER = ("predict", "report", "compare", "summary", "dataset", "export")
UNDOCUMENTED_FLAG = re.compile(r"^  --(?!help|print|config)[\w.]+ [A-Z_]+\n(?!  +\S)", re.M)


def test_help_lists_every_command_with_its_first_line(run):
    outcome = run("--help")
    assert outcome.code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} +{re.escape(summary_line(command))}$", outcome.out, re.M), command


@pytest.mark.parametrize("command", WITHOUT_TRAINER)
def test_the_help_of_a_command_documents_its_flags(run, command):
    outcome = run(command, "--help")
    assert outcome.code == 0
    assert summary_line(command) in " ".join(outcome.out.split())  # it is wrapped
    assert not UNDOCUMENTED_FLAG.search(outcome.out)
