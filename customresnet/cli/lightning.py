"""Run the commands that take a trainer, a model and data, which LightningCLI builds from flags."""

import argparse
import logging
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback

from customresnet.cli.parsing import add_command_arguments, in_one_line, split_flags, with_flags
from customresnet.cli.recipes import checked_recipe, is_preset, recipe_path
from customresnet.data import sources
from customresnet.data.datamodule import CIFAR10DataModule
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.models import default_width, network_spec
from customresnet.runs.checkpoint import read_checkpoint
from customresnet.runs.folders import CONFIG, check_run_name, find_checkpoint, is_finished, newest_run, run_folder
from customresnet.runs.validation import check_network_code
from customresnet.runtime.errors import UserError
from customresnet.training.classifier import ImageClassifier
from customresnet.training.messages import parameter_names
from customresnet.training.options import check_same_options, refuse_contradiction
from customresnet.training.trainer import Trainer

# What Lightning logs at each start or resume; the opening lines say the same.
ROUTINE = re.compile(
    r"GPU available|TPU available|HPU available|.*Tip: |Using .* Automatic Mixed Precision|LOCAL_RANK: |Seed set to|"
    r"Restor(ing|ed) |Loaded model weights|`weights_only` was not set|You are using a CUDA device|"
    r"`Trainer\.fit` stopped: `max_(epochs|steps)="
)
for name in ("pytorch_lightning", "lightning_fabric"):
    for handler in logging.getLogger(name).handlers:
        handler.addFilter(lambda record: not ROUTINE.match(record.getMessage()))
NOISE = "does not have many workers|Checkpoint directory .* not empty|"
NOISE += "LightningCLI's args parameter|torch.jit.trace|isinstance.treespec, LeafSpec"
warnings.filterwarnings("ignore", message=f".*({NOISE}).*")

FIT_FLAGS = ("lr_find", "report", "auto_resume", "checkpoint_every_n_steps", "checkpoint_every_minutes")
RECIPE_FLAGS = ("ckpt_path", *FIT_FLAGS, "start", "end", "spacing")
"""Flags of individual commands that a recipe or config.yaml may contain; other commands ignore them."""

FIXED = tuple(["seed_everything", "model.", "data.", "trainer.precision", "trainer.accumulate_grad_batches"])
FIXED += ("trainer.gradient_clip_val", "trainer.gradient_clip_algorithm", "trainer.limit_train_batches")
FREE = ("model.compile", "model.num_classes", "data.root", "data.num_workers")
"""Options that a resumed run must keep, and exceptions."""

NETWORK = "--model.network."


class CommandLine(LightningCLI):
    """LightningCLI for one command, with presets, and with the options of a given checkpoint."""

    def __init__(self, function: Callable[..., Any], words: list[str], name: str) -> None:
        self.function, self.words = function, words
        super().__init__(
            ImageClassifier,
            CIFAR10DataModule,
            save_config_callback=SaveRunConfig,
            save_config_kwargs={"overwrite": True},
            trainer_class=Trainer,
            seed_everything_default=0,
            parser_kwargs={
                "prog": f"customresnet {name}",
                "description": (function.__doc__ or "").splitlines()[0],
                "exit_on_error": False,
            },
            args=words,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # the options are plain values
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.own = add_command_arguments(parser, self.function, skip={"model", "datamodule", "trainer"})
        for name in RECIPE_FLAGS:
            if name not in self.own:
                parser.add_argument(f"--{name}", type=Any, help=argparse.SUPPRESS)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse recipes and flags. A checkpoint adds its run's config.yaml, and flags override everything."""
        words = list(self.words)
        # schedule accepts the flags of fit
        ignored = FIT_FLAGS if self.function.__name__ == "schedule" else ()
        for name in RECIPE_FLAGS:
            given = any(word.split("=")[0].split(".")[0] == f"--{name}" for word in words)
            if given and name not in (*self.own, *ignored):
                raise UserError(f"this command has no --{name}")
        # flags override recipes, whatever their order
        configs, flags = split_flags(words, lambda flag: flag in ("--config", "-c"))
        recipes = [value for _, value in configs]
        network, flags = split_flags(flags, lambda flag: flag.startswith(NETWORK))

        replacing = {flag.partition("=")[0] for flag in flags}

        def parse(files: list[Path]) -> None:
            texts = [checked_recipe(file, replacing) for file in files]
            self.config = parser.parse_args([*(word for text in texts for word in ("--config", text)), *flags])
            if network:
                self.config.model.network = with_arguments(self.config.model.network, network)

        parse([recipe_path(recipe) for recipe in recipes])
        check_run_name(self.config.trainer.run_name)
        if not 0 <= self.config.seed_everything < 2**32:
            raise UserError(f"`seed_everything` must be from 0 to {2**32 - 1}; received {self.config.seed_everything}")
        self.checkpoint: dict[str, Any] | None = None
        self.has_config = False
        root = Path(self.config.trainer.default_root_dir or ".")
        if self.function.__name__ == "fit" and self.config.auto_resume and not self.config.ckpt_path:
            newest = newest_run(root, self.config.trainer.run_name)
            self.config.ckpt_path = str(newest) if newest and not is_finished(newest) else None
        if not self.config.ckpt_path:
            return
        unfinished = self.function.__name__ == "fit"
        path = find_checkpoint(self.config.ckpt_path, root, self.config.trainer.run_name, unfinished=unfinished)
        saved = run_folder(path) / CONFIG
        self.has_config = saved.is_file()
        if self.has_config:
            # the run's config contains its preset already
            parse([saved, *(recipe_path(recipe) for recipe in recipes if not is_preset(recipe))])
            if unfinished:
                refuse_changes(parser.parse_args(["--config", checked_recipe(saved, replacing)]), self.config)
        self.config.ckpt_path = str(path)
        self.checkpoint = read_checkpoint(path)

    def before_instantiate_classes(self) -> None:
        """Take the number of classes from the data, or all options not given from the checkpoint."""
        config = self.config
        for name in RECIPE_FLAGS:
            if name not in self.own:
                config[name] = None  # its value may be anything, even an object to build
        if self.checkpoint is None:
            config.model.num_classes = len(
                sources.class_names(config.data.source or "cifar10", config.data.root, config.data.test_share)
            )
            return
        if not self.has_config:  # without a config.yaml, an option that equals its default counts as not given
            defaults = self.parser.get_defaults()
            for name, value in self.checkpoint["hyper_parameters"].items():
                if name in config.model and config.model[name] == defaults.model[name]:
                    config.model[name] = value
        options = {**config.model, "network": network_spec(config.model.network)}
        options["width"] = options["width"] or default_width(options["network"])
        check_same_options(self.checkpoint["hyper_parameters"], options, resumed=False)  # before it is built
        check_network_code(self.checkpoint["hyper_parameters"])
        preprocessing = Preprocessing.from_checkpoint(self.checkpoint)
        for name in ("mean", "std", "image_size"):
            if config.data[name] in (None, "auto"):
                config.data[name] = getattr(preprocessing, name)
            refuse_contradiction(f"`{name}`", getattr(preprocessing, name), config.data[name])
        config.data.source = config.data.source or preprocessing.source


def refuse_changes(saved: Namespace, own: Namespace) -> None:
    """Raise a UserError if a resumed run would train with other options than it was started with."""
    for name in saved.keys():  # noqa: SIM118 (the keys of a nested mapping)
        if name.startswith(FIXED) and name not in FREE:
            refuse_contradiction(f"--{name}", saved[name], own[name])


class SaveRunConfig(SaveConfigCallback):
    """Write config.yaml into the run's folder, with the learning rates that the run uses."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pass  # too early: a checkpoint may still be refused

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.logger is None:
            return
        for name in ("lr_max", "lr_min"):
            self.config.model[name] = pl_module.hparams[name]
        self.config.ckpt_path = None  # the file describes the run, not its resumption
        super().setup(trainer, pl_module, "fit")


def ignore_failed_writes(args: threading.ExceptHookArgs) -> None:
    """Print no traceback for a thread that cannot write, as TensorBoard's: its owner reports it."""
    if args.exc_type is None or not issubclass(args.exc_type, OSError):
        threading.__excepthook__(args)


def run_with_trainer(name: str, function: Callable[..., Any], words: list[str]) -> None:
    """Build trainer, model and data from flags, and call a command's function with them."""
    cli: CommandLine | None = None
    threading.excepthook = ignore_failed_writes
    try:
        cli = CommandLine(function, words, name)
        own = {parameter: cli.config_init[parameter] for parameter in cli.own}
        token = parameter_names.set(partial(with_flags, parser=cli.parser))
        try:
            result = function(cli.model, cli.datamodule, cli.trainer, **own)
        finally:
            parameter_names.reset(token)
        if isinstance(result, dict) and result.get("ended") == "diverged":
            sys.exit(1)
    except argparse.ArgumentError as error:
        raise UserError(in_one_line(str(error))) from error
    except UserError as error:
        raise type(error)(with_flags(str(error), flags_parser(function))) from error
    except BrokenPipeError:  # handled in main
        raise
    except Exception as error:
        if cli is not None and cli.trainer.global_step > 0:
            raise
        origin = "--trainer" if raised_by_lightning(error) else type(error).__name__
        raise UserError(f"{origin}: {in_one_line(str(error))}") from error


def flags_parser(function: Callable[..., Any]) -> LightningArgumentParser:
    """A parser that knows the flags of a command, for error messages."""
    parser = LightningArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--seed_everything")
    add_command_arguments(parser, function, skip={"model", "datamodule", "trainer"})
    for kind, key in ((ImageClassifier, "model"), (CIFAR10DataModule, "data"), (Trainer, "trainer")):
        parser.add_lightning_class_args(kind, key)
    return parser


def with_arguments(network: str | dict[str, Any], flags: list[tuple[str, str]]) -> dict[str, Any]:
    """A network's class path and init arguments, updated with ``--model.network.init_args.NAME VALUE``."""
    spec: dict[str, Any] = {"class_path": network} if isinstance(network, str) else dict(network)
    given = {flag.removeprefix(NETWORK).removeprefix("init_args."): yaml.safe_load(value) for flag, value in flags}
    class_path = given.pop("class_path", spec["class_path"])
    return {"class_path": class_path, "init_args": {**dict(spec.get("init_args") or {}), **given}}


def raised_by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself raised the error, for example for an invalid --trainer flag."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith(("pytorch_lightning", "lightning_fabric"))
