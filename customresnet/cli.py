"""The command line: `python -m customresnet COMMAND`. Subcommands, presets, and how an error is shown."""

import logging
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any, NoReturn

from customresnet.errors import UserError

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import jsonargparse
import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from customresnet.data import sources
from customresnet.data.datamodule import CIFAR10DataModule, Preprocessing
from customresnet.training import runs
from customresnet.training.classifier import ImageClassifier
from customresnet.training.trainer import Trainer

# What Lightning says at each start is said here in the run's own opening lines, or is no mistake of the user's.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
NOISE = "does not have many workers|LightningCLI's args parameter|torch.jit.trace|isinstance.treespec, LeafSpec"
warnings.filterwarnings("ignore", message=f".*({NOISE}).*")

PRESETS = Path(__file__).parent / "presets"
DESCRIPTION = "Train, evaluate and use CustomResNet on CIFAR-10. `COMMAND --help` lists a command's flags."


def preset_path(value: str) -> str:
    """The file that ``--config`` means: a preset by its bare name, or a path."""
    if Path(value).suffix or os.sep in value or Path(value).is_file():
        if not Path(value).is_file():
            raise UserError(f"--config {value}: no such file")
        return value
    preset = PRESETS / f"{value}.yaml"
    if not preset.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise UserError(f"--config {value}: no such preset or file; presets: {known}")
    return str(preset)


class PresetOrFile(jsonargparse.ActionConfigFile):
    """``--config`` that also takes a preset's bare name."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        super().__call__(parser, cfg, preset_path(values), option_string)


class Parser(LightningArgumentParser):
    """A parser whose errors are exceptions, so that every mistake is shown alike."""

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


class SaveRunConfig(SaveConfigCallback):
    """Keep config.yaml in the run's folder, with the learning rates that were really used."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        for name in ("lr_max", "lr_min"):
            self.config.model[name] = pl_module.hparams[name]
        self.config.ckpt_path = None  # the file describes the run, not how it was gone on with
        super().setup(trainer, pl_module, stage)


class CLI(LightningCLI):
    """LightningCLI with presets, `lr-find`, and checkpoints that bring their own options."""

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        data = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "weights_only"}
        return {
            "fit": data,
            "validate": data | {"verbose"},
            "test": data | {"verbose"},
            "predict": data | {"return_predictions"},
            "lr-find": data,
        }

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = self.parser_class(**kwargs)
        parser.add_argument("-c", "--config", action=PresetOrFile, help="A preset's name, or a YAML file.")
        return parser

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a run that is resumed brings its own config.yaml, and only flags given by hand go before it."""
        super().parse_arguments(parser, args)
        config = self._command_config()
        if not config.get("ckpt_path"):
            return
        command = self.config.subcommand
        root = Path(config.trainer.default_root_dir or ".")
        path = runs.find_checkpoint(config.ckpt_path, root, config.trainer.run_name, unfinished=command == "fit")
        saved = runs.run_folder(path) / "config.yaml"
        if command == "fit" and saved.is_file():
            words = without_configs(sys.argv[1:] if args is None else args)
            super().parse_arguments(parser, [words[0], "--config", str(saved), *words[1:]])
        elif saved.is_file():
            self._take_data_options(yaml.safe_load(saved.read_text()))
        self._command_config().ckpt_path = str(path)

    def _command_config(self) -> Any:
        return self.config[self.config.subcommand]

    def _take_data_options(self, saved: dict[str, Any]) -> None:
        """Evaluate on the data of the run, where the command line does not name another."""
        config, defaults = self._command_config(), self._subcommand_parsers[self.config.subcommand].get_defaults()
        names = ("root", "val_size", "seed") if config.data.source is None else ("val_size", "seed")
        for name in names:
            if config.data[name] == defaults.data[name]:
                config.data[name] = saved["data"][name]
        if config.seed_everything == defaults.seed_everything:
            config.seed_everything = saved["seed_everything"]

    def _parse_ckpt_path(self) -> None:
        """Take from the checkpoint what was not given by hand, and refuse what contradicts it."""
        command, config = self.config.subcommand, self._command_config()
        if command in ("validate", "test", "predict") and not config.ckpt_path:
            raise UserError(f"{command} needs --ckpt_path: last, a checkpoint or a run's folder")
        if not config.get("ckpt_path"):
            return
        path = Path(config.ckpt_path)
        checkpoint = runs.read_checkpoint(path)
        defaults = self._subcommand_parsers[command].get_defaults()
        for name, value in checkpoint["hyper_parameters"].items():
            if name in config.model and name not in ("compile", "num_classes"):
                given = as_list(config.model[name])
                if given not in (as_list(defaults.model[name]), as_list(value)):
                    raise UserError(f"--model.{name} {given} contradicts {path}, trained with {as_list(value)}")
                config.model[name] = value
        preprocessing = Preprocessing.of_checkpoint(checkpoint)
        for name in ("mean", "std", "image_size"):
            value, given = getattr(preprocessing, name), config.data[name]
            if given is not None and as_list(given) != as_list(value):
                raise UserError(f"--data.{name} {as_list(given)} contradicts {path}, trained with {as_list(value)}")
            config.data[name] = value
        config.data.source = config.data.source or preprocessing.source
        config.model.num_classes = len(preprocessing.classes)

    def before_instantiate_classes(self) -> None:
        config = self._command_config()
        if not config.get("ckpt_path"):
            config.model.num_classes = sources.count_classes(config.data.source or "cifar10", config.data.root)


def as_list(value: Any) -> Any:
    """Tuples as lists, so that a checkpoint's and the command line's compare."""
    return list(value) if isinstance(value, tuple) else value


def without_configs(words: list[str]) -> list[str]:
    """A command line without its ``--config`` options."""
    kept, skip = [], False
    for word in words:
        if skip:
            skip = False
        elif word in ("-c", "--config"):
            skip = True
        elif not word.startswith("--config="):
            kept.append(word)
    return kept


def main(args: list[str] | None = None) -> None:
    """Run one command; a user's mistake is one line on stderr and exit code 2.

    Args:
        args: The command line without the program's name; default: the process's own.
    """
    argv = sys.argv[1:] if args is None else args
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)
    try:
        CLI(
            ImageClassifier,
            CIFAR10DataModule,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},
            trainer_class=Trainer,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"description": DESCRIPTION, "prog": "customresnet"},
            auto_configure_optimizers=False,
            args=argv,
        )
    except UserError as error:
        if debug:
            raise
        sys.exit(_show(error))


def _show(error: UserError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2
