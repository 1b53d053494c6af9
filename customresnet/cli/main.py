"""The command line: `python -m customresnet COMMAND`. Subcommands, presets, and how an error is shown."""

import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import jsonargparse
import pytorch_lightning as pl
import yaml
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from customresnet.cli import recipes
from customresnet.cli.flags import with_flags
from customresnet.cli.parsing import RaisingParser
from customresnet.cli.plain import PLAIN_COMMANDS, run_plain_command
from customresnet.data import sources
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs import folders as runs
from customresnet.runtime.errors import UserError
from customresnet.training.classifier import ImageClassifier, refuse_contradiction
from customresnet.training.trainer import Trainer

# What Lightning says at each start is said here in the run's own opening lines, or is no mistake of the user's.
logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
NOISE = "does not have many workers|LightningCLI's args parameter|torch.jit.trace|isinstance.treespec, LeafSpec"
warnings.filterwarnings("ignore", message=f".*({NOISE}).*")

# A recipe may speak to several commands: each takes what it knows of these.
COMMANDS_OWN = {"lr_find", "ckpt_path", "report", "start", "end", "spacing"}
DESCRIPTION = "Train, evaluate and use CustomResNet on CIFAR-10. `COMMAND --help` lists a command's flags."


class PresetOrFile(jsonargparse.ActionConfigFile):
    """``--config`` that also takes a preset's bare name, and one recipe for all commands."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        recipe = recipes.read(recipes.path_of(values), f"--config {values}")
        known = {action.dest.split(".")[0] for action in parser._actions}
        kept = {key: value for key, value in recipe.items() if key in known or key not in COMMANDS_OWN}
        super().__call__(parser, cfg, yaml.safe_dump(kept), option_string)


class Parser(RaisingParser, LightningArgumentParser):
    """LightningCLI's parser, raising its errors."""


class SaveRunConfig(SaveConfigCallback):
    """Keep config.yaml in the run's folder, with the learning rates that were really used."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.logger is None:
            return
        for name in ("lr_max", "lr_min"):
            self.config.model[name] = pl_module.hparams[name]
        self.config.ckpt_path = None  # the file describes the run, not how it was gone on with
        super().setup(trainer, pl_module, stage)


class CLI(LightningCLI):
    """LightningCLI with presets, more subcommands, and checkpoints that bring their own options."""

    def __init__(self, *, args: list[str], **options: Any) -> None:
        commands = self.subcommands().keys()
        # A command's flags take a while to collect. Who names no command may do so in a file, or want the list of them.
        self._flags_wanted = commands & set(args) or (set() if {"-h", "--help"} & set(args) else commands)
        super().__init__(args=args, **options)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        given = {"model", "datamodule"}
        return {
            "fit": given,
            "validate": given,
            "test": given,
            "predict": given | {"images"},
            "lr-find": given,
            "lr-sweep": given | {"resume"},
            "schedule": given,
        }

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        parser = self.parser_class(**kwargs)
        parser.add_argument("-c", "--config", action=PresetOrFile, help="A preset's name, or a YAML file.")
        return parser

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        if subcommand not in self._flags_wanted:
            return self.init_parser(**kwargs)
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "predict":  # a signature cannot say that an option takes several words
            parser.add_argument("--images", nargs="+", help="Image files, or directories of them.")
            self._subcommand_method_arguments[subcommand].append("images")
        if subcommand in ("fit", "schedule"):  # not the Trainer's concern: training knows nothing of reports
            parser.add_argument("--report", type=bool, default=True, help="Write the run's report after training.")
        if subcommand == "lr-sweep":  # nor that it needs none
            parser.add_argument("--resume", action="store_true", help="Go on with the newest unfinished sweep.")
            self._subcommand_method_arguments[subcommand].append("resume")
        return parser

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        for name, command in PLAIN_COMMANDS.items():  # only for the list of commands: main runs them by itself
            parser._subcommands_action.add_subcommand(name, RaisingParser(), help=command.help)  # type: ignore[union-attr]

    def after_fit(self) -> None:
        """Write the report of the run that has just ended."""
        trainer, config = self.trainer, self._command_config()
        checkpoint = Path(trainer.log_dir or ".") / runs.CHECKPOINTS / runs.LAST
        wanted = config.report and trainer.is_global_zero and trainer.logger and not config.trainer.fast_dev_run
        if not (wanted and checkpoint.is_file()):
            return
        from customresnet.commands.report import write_report

        try:
            write_report(checkpoint, self.datamodule.test_images)
        except (UserError, OSError) as error:  # what was trained is not lost by it
            print(f"warning: the run is kept, but its report could not be written: {error}", file=sys.stderr)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; a checkpoint brings its run's config.yaml. Flags given by hand override both, wherever they stand."""
        command, named, others = split_words(args)

        def words(*configs: str) -> list[str]:
            return [*command, *(word for config in configs for word in ("--config", config)), *others]

        super().parse_arguments(parser, words(*named))
        config = self._command_config()
        if not config.get("ckpt_path"):
            return
        unfinished = self.config.subcommand == "fit"
        root = Path(config.trainer.default_root_dir or ".")
        path = runs.find_checkpoint(config.ckpt_path, root, config.trainer.run_name, unfinished=unfinished)
        saved = runs.run_folder(path) / "config.yaml"
        self._of_a_run = saved.is_file()
        if self._of_a_run:
            # the run that presets were named for knows them already
            given = [name for name in named if not recipes.is_preset(name)]
            super().parse_arguments(parser, words(str(saved), *given))
        self._command_config().ckpt_path = str(path)

    def _command_config(self) -> Any:
        return self.config[self.config.subcommand]

    def _parse_ckpt_path(self) -> None:
        """Take from the checkpoint what was not given by hand; what contradicts it, its loading refuses."""
        command, config = self.config.subcommand, self._command_config()
        if command in ("validate", "test", "predict") and not config.ckpt_path:
            raise UserError(f"{command} needs --ckpt_path: last, a checkpoint or a run's folder")
        if not config.get("ckpt_path"):
            return
        checkpoint = runs.read_checkpoint(Path(config.ckpt_path))
        defaults = self._subcommand_parsers[command].get_defaults()
        for name, value in checkpoint["hyper_parameters"].items():
            # without the run's config.yaml nobody knows whether a default was asked for
            if not self._of_a_run and name in config.model and config.model[name] == defaults.model[name]:
                config.model[name] = value
        preprocessing = Preprocessing.from_checkpoint(checkpoint)
        for name in ("mean", "std", "image_size"):
            if config.data[name] is None:
                config.data[name] = getattr(preprocessing, name)
            refuse_contradiction(f"--data.{name}", getattr(preprocessing, name), config.data[name])
        config.data.source = config.data.source or preprocessing.source

    def before_instantiate_classes(self) -> None:
        config = self._command_config()
        if not config.get("ckpt_path"):
            classes = sources.class_names(config.data.source or "cifar10", config.data.root)
            config.model.num_classes = len(classes)

    def _set_seed(self) -> None:
        try:
            super()._set_seed()
        except ValueError as error:
            raise UserError(f"--seed_everything {self._command_config().seed_everything}: {error}") from error


def split_words(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    """A command line as its command, the recipes that it names, and all other words.

    What comes later overrides what comes before, so recipes are to come before all flags.
    """
    if not words or words[0].startswith("-"):
        return [], [], words
    named: list[str] = []
    others: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        if word.startswith(("--config=", "-c=")):
            named.append(word.partition("=")[2])
        elif word in ("--config", "-c") and (value := next(rest, None)) is not None:
            named.append(value)
        else:
            others.append(word)
    return words[:1], named, others


def main(args: list[str] | None = None) -> None:
    """Run one command; a user's mistake is one line on stderr and exit code 2.

    Args:
        args: The command line without the program's name; default: the process's own.
    """
    argv = sys.argv[1:] if args is None else args
    debug = "--debug" in argv
    argv = [a for a in argv if a != "--debug"]
    try:
        if argv and argv[0] in PLAIN_COMMANDS:
            run_plain_command(argv[0], argv[1:])
        else:
            CLI(
                model_class=ImageClassifier,
                datamodule_class=CIFAR10DataModule,
                save_config_callback=SaveRunConfig,
                save_config_kwargs={"overwrite": True},
                trainer_class=Trainer,
                seed_everything_default=0,
                parser_class=Parser,
                parser_kwargs={"description": DESCRIPTION, "prog": "customresnet"},
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # plain arguments need no instantiator in the checkpoint
                args=argv,
            )
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read along, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed goes nowhere
        sys.exit(1)
    except (UserError, MisconfigurationException, ValueError) as error:
        if debug or not (isinstance(error, UserError) or raised_by_lightning(error)):
            raise
        message = with_flags(str(error), _keys()) if isinstance(error, UserError) else f"--trainer: {error}"
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(2)


def _keys() -> list[str]:
    """Every flag of every command, until each command brings its own."""
    import inspect
    from dataclasses import fields, is_dataclass

    from customresnet.commands.report import report
    from customresnet.training.lr.bounds import LRRangeTest

    keys = ["seed_everything", "ckpt_path", "config"]

    def add(prefix: str, parameters: dict[str, Any]) -> None:
        for name, default in parameters.items():
            keys.append(f"{prefix}{name}")
            if is_dataclass(default):
                add(f"{prefix}{name}.", {field.name: getattr(default, field.name) for field in fields(default)})

    for prefix, function in (
        ("data.", CIFAR10DataModule),
        ("model.", ImageClassifier),
        ("trainer.", Trainer),
        ("trainer.", pl.Trainer),
        ("", Trainer.find_learning_rates),
        ("", Trainer.sweep_learning_rates),
        ("", Trainer.schedule),
        ("", report),
    ):
        add(prefix, {name: p.default for name, p in inspect.signature(function).parameters.items()})
    add("lr_find.", {field.name: None for field in fields(LRRangeTest)})
    return keys


def raised_by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself refused something, as it does with a wrong --trainer flag."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith(("pytorch_lightning", "lightning_fabric"))
