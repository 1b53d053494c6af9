"""Recipes and a run's config.yaml from anywhere: bounded, and no code that they name is imported."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from customresnet.runtime.recipes import MAX_NODES, BoundsError, load_yaml
from tests.conftest import BOUNDS, SMALL, one_line

RUN = Path("lightning_logs/demo/version_0")
BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
DRY = ["--data.source", "digits", "--trainer.fast_dev_run", "1"]


@pytest.fixture
def evil(tmp_path, monkeypatch) -> Iterator[Path]:
    """A module that leaves a file behind when it is imported."""
    (tmp_path / "evil.py").write_text(
        "from pathlib import Path\nimport pytorch_lightning as pl\nfrom customresnet.models import CustomResNet\n"
        "Path('imported').touch()\nclass Net(CustomResNet): pass\nclass Cb(pl.Callback): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "imported"
    sys.modules.pop("evil", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "contains more than"),
        (f"trainer: {{max_epochs: '{{{BOMB.replace(chr(10), ', ')}}}'}}", "contains more than"),
        ("trainer: &x {callbacks: *x}", "the alias *x stands for nothing, or for itself"),
        ("trainer: " + "[" * 50_000, "not readable YAML"),
        ("trainer: " + "{a: " * 5_000, "nested more than 32 levels deep"),
        ("# " + "x" * 2**20, "larger than 1,048,576 bytes"),
        ("trainer: {max_epochs: 1}\ntrainer: {max_epochs: 2}", "the key trainer is repeated"),
        ("trainer: {max_epochs: 1, max_epochs: 2}", "the key max_epochs is repeated"),
        ("trainer: {max_epochs: 1" + "0" * 10_000 + "}", "not readable YAML"),
        ("trainer: {max_time: 2001-99-99}", "not readable YAML"),
        ("trainer: !!python/object/apply:os.system ['touch imported']", "not readable YAML"),
        ("- 1", "contains no flags"),
        ("trainer: [1]", "trainer must be a section of options; received [1]"),
        ("model: nothing.yaml", "model must be a section of options; received nothing.yaml"),
        ("trainer: {run_name: ../../x}", "--trainer.run_name must be a folder's name inside lightning_logs"),
        ("data: {image_size: 100000}", "--data.image_size must be at most 1024; received 100000"),
    ],
)
def test_a_recipe_is_bounded(run, text, message):
    Path("recipe.yaml").write_text(text)
    one_line(run("schedule", "--data.source", "digits", "--config", "recipe.yaml"), message)
    assert sorted(path.name for path in Path().iterdir()) == ["recipe.yaml"]


def test_aliases_are_replaced_up_to_the_bound():
    assert load_yaml("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    values = f"a: &x [{', '.join('1' * (MAX_NODES // 4))}]\n"
    load_yaml(values + "b: [*x, *x]")
    with pytest.raises(BoundsError, match="contains more than"):
        load_yaml(values + "b: [*x, *x, *x, *x]")


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "..", "", "a//b", "a\0b", "..\\x", "x" * 300])
def test_a_run_stays_inside_lightning_logs(run, name):
    one_line(run("fit", *SMALL, *BOUNDS, "--trainer.run_name", name), "--trainer.run_name must be a folder's name")
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "trainer: {callbacks: [{class_path: evil.Cb}]}",
        "trainer: {callbacks: evil.Cb}",
        "trainer: {logger: {class_path: evil.Cb}}",
        "trainer: '{callbacks: [{class_path: evil.Cb}]}'",
        "trainer: nested.yaml",
        "model: {network: evil.Net}",
        "model: {network: {class_path: evil.Net, init_args: {width: 4}}}",
        "model: {network: {class_path: torch.nn.Linear, init_args: {a: {class_path: evil.Net}}}}",
        "start: {class_path: evil.Net}",
    ],
)
def test_code_that_a_recipe_names_is_not_imported(run, evil, text):
    Path("nested.yaml").write_text("callbacks: [{class_path: evil.Cb}]")
    Path("recipe.yaml").write_text(text)
    outcome = run("fit", *DRY, "--config", "recipe.yaml")
    assert outcome.code == 2
    assert not evil.exists()
    if "'" not in text:
        one_line(outcome, "--config recipe.yaml names evil.", "pass --trust if you trust it")


@pytest.mark.parametrize(
    "path", ["torch.hub.load", "torch.jit.load", "torch.load", "torch.multiprocessing.Process", "os.system"]
)
def test_functions_that_run_code_are_refused_wherever_they_lie(run, path):
    Path("recipe.yaml").write_text(f"model: {{network: {{class_path: {path}}}}}")
    one_line(run("fit", *DRY, "--config", "recipe.yaml"), f"--config recipe.yaml names {path}", "--trust")


def test_code_is_trusted_if_the_command_line_names_it_or_says_so(run, evil):
    Path("recipe.yaml").write_text("model: {network: {class_path: evil.Net, init_args: {width: 4}}}")
    words = ["schedule", "--data.source", "digits", "--config", "recipe.yaml"]
    assert run(*words, "--model.network", "evil.Net").code == 0
    assert evil.exists()
    one_line(run(*words), "names evil.Net")  # trust ends with the command
    assert run(*words, "--trust").code == 0
    Path("lightning.yaml").write_text("trainer: {callbacks: {class_path: pytorch_lightning.callbacks.Timer}}")
    assert run(*words[:-1], "lightning.yaml").code == 0


def test_a_runs_config_is_not_trusted_either(run, small_run, evil):
    shutil.copytree(small_run, RUN)
    config = yaml.safe_load((RUN / "config.yaml").read_text())
    config["trainer"]["callbacks"] = {"class_path": "evil.Cb"}
    (RUN / "config.yaml").write_text(yaml.safe_dump(config))
    one_line(run("test", "--ckpt_path", str(RUN)), "config.yaml names evil.Cb")
    assert run("test", "--ckpt_path", str(RUN), "--trainer.callbacks", "[]").code == 0  # a flag replaces it
    assert not evil.exists()
    (RUN / "config.yaml").write_text(BOMB)
    one_line(run("test", "--ckpt_path", str(RUN)), "contains more than")


@pytest.mark.parametrize("path", ["evil.Net", "torch.hub.load"])
def test_the_network_that_a_checkpoint_names_is_not_imported(run, small_run, evil, path):
    checkpoint = torch.load(small_run / "checkpoints/last.ckpt", weights_only=True)
    checkpoint["hyper_parameters"].update(network={"class_path": path, "init_args": {}}, width=None)
    torch.save(checkpoint, "own.ckpt")
    for words in (["predict", "--images", "a.png"], ["summary"], ["report"], ["test"]):
        one_line(run(*words, "--ckpt_path", "own.ckpt"), f"--ckpt_path: the checkpoint names {path}", "--trust")
    assert not evil.exists()
    if path == "evil.Net":
        checkpoint["hyper_parameters"]["network"]["init_args"] = {"width": 8}
        torch.save(checkpoint, "own.ckpt")
        outcome = run("summary", "--ckpt_path", "own.ckpt", "--trust")
        assert outcome.code == 0, outcome.err
        assert evil.exists()
