"""What people who know Lightning and LightningCLI do works, or is refused in one clear line."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelCheckpoint,
    ModelPruning,
    StochasticWeightAveraging,
    Timer,
    TQDMProgressBar,
)
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.plugins import MixedPrecision
from pytorch_lightning.plugins.io import AsyncCheckpointIO, TorchCheckpointIO
from pytorch_lightning.tuner import Tuner
from torch.utils.data import DataLoader, TensorDataset

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.runtime.errors import UserError
from tests.conftest import Outcome, one_line

Command = Callable[..., Outcome]

DIGITS = ["--data.source", "digits", "--data.batch_size", "64", "--data.train_size", "300", "--model.width", "4"]
BOUNDS = ["--model.lr_max", "3e-3", "--model.lr_min", "1e-4"]
TINY = [*DIGITS, *BOUNDS, "--trainer.max_epochs", "2"]
RUNS = Path("lightning_logs/customresnet")


def data(**options: Any) -> CIFAR10DataModule:
    return CIFAR10DataModule(source="digits", batch_size=64, train_size=300, seed=0, **options)


def classifier(**options: Any) -> ImageClassifier:
    return ImageClassifier(width=4, **{"lr_max": 3e-3, "lr_min": 1e-4, **options})


def result(version: int = 0) -> dict[str, Any]:
    return json.loads((RUNS / f"version_{version}/result.json").read_text())


@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of a Trainer that runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return {"enable_progress_bar": False, "max_epochs": 1}


# ------------------------------------------------------------------------------------------------------------- flags


@pytest.mark.parametrize(
    "flags",
    [
        "--trainer.gradient_clip_val 0.5",
        "--trainer.deterministic true",
        "--trainer.detect_anomaly true",
        "--trainer.precision 64-true",
        "--trainer.precision 32-true",
        "--trainer.inference_mode false",
        "--trainer.min_epochs 1",
        "--trainer.reload_dataloaders_every_n_epochs 1",
        "--trainer.check_val_every_n_epoch 2",
        "--trainer.accumulate_grad_batches 3",
        "--trainer.limit_val_batches 2",
        "--trainer.num_sanity_val_steps 1",
        "--trainer.sync_batchnorm true",
        "--trainer.callbacks TQDMProgressBar --trainer.callbacks.refresh_rate 0",
        "--trainer.callbacks LearningRateMonitor",
        "--trainer.callbacks ModelCheckpoint",
        "--trainer.callbacks ModelSummary",
        "--trainer.logger false",
        "--trainer.enable_checkpointing false",
        "--trainer.barebones true",
        "--trainer.fast_dev_run true",
    ],
)
def test_a_flag_of_lightning_works(run: Command, flags: str) -> None:
    outcome = run("fit", *TINY, *flags.split())
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ("--trainer.logger WandbLogger", ["WandbLogger", "pip install", "wandb"]),
        ("--trainer.callbacks RichProgressBar", ["RichProgressBar", "pip install", "rich"]),
        ("--trainer.callbacks DeviceStatsMonitor", ["DeviceStatsMonitor", "psutil"]),
        ("--trainer.callbacks EarlyStopping", ["monitor is required"]),
        (
            "--trainer.callbacks EarlyStopping --trainer.callbacks.monitor nope",
            ["--trainer.callbacks: EarlyStopping monitors nope", "test/acc"],
        ),
        ("--trainer.callbacks LearningRateFinder", ["--trainer.callbacks: LearningRateFinder", "lr-find"]),
        ("--trainer.callbacks BatchSizeFinder", ["--trainer.callbacks: BatchSizeFinder", "--data.batch_size"]),
        (
            "--trainer.callbacks StochasticWeightAveraging --trainer.callbacks.swa_lrs 0.01",
            ["--trainer.callbacks: StochasticWeightAveraging", "WeightAveraging"],
        ),
        ("--trainer.precision transformer-engine", ["transformer_engine"]),
        ("--trainer.accelerator tpu", ["torch_xla"]),
        ("--trainer.val_check_interval 1000", ["val_check_interval"]),
        ("--trainer.accelerator cpu --trainer.devices 2 --trainer.strategy ddp_spawn", ["--trainer.strategy", "ddp"]),
    ],
)
def test_what_cannot_work_is_refused_in_one_line_and_leaves_no_folder(
    run: Command, flags: str, parts: list[str]
) -> None:
    one_line(run("fit", *TINY, *flags.split()), *parts)
    assert list(Path("lightning_logs").rglob("*.*")) == []
    assert not any(RUNS.glob("version_*"))


def test_an_evaluation_within_an_epoch_is_shown_and_recorded(run: Command) -> None:
    outcome = run("fit", *TINY, "--trainer.val_check_interval", "2")
    assert outcome.code == 0, outcome.err
    assert re.search(r"^epoch 0.4/2 .* test loss", outcome.out, re.M)
    rows = (RUNS / "version_0/epochs.csv").read_text().splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [
        ["0.4", "2"], ["0.8", "4"], ["1", "5"], ["1.4", "7"], ["1.8", "9"], ["2", "10"],
    ]  # fmt: skip


def test_the_best_checkpoints_accuracy_is_that_of_its_weights(run: Command) -> None:
    run("fit", *TINY, "--data.val_size", "100", "--trainer.val_check_interval", "2", "--model.lr_max", "2e-2")
    best = torch.load(RUNS / "version_0/checkpoints/best.ckpt", weights_only=True)
    state = next(state for name, state in best["callbacks"].items() if "val/acc" in name)
    outcome = run("validate", "--ckpt_path", str(RUNS / "version_0/checkpoints/best.ckpt"))
    assert outcome.code == 0, outcome.err
    found = json.loads((RUNS / "version_0/validate.json").read_text())
    assert found["val/acc"] == pytest.approx(float(state["best_model_score"]))
    assert run("validate", "--ckpt_path", "best").out.splitlines()[0] == outcome.out.splitlines()[0]


def test_the_checkpoint_that_slurm_leaves_is_found(run: Command) -> None:
    one_line(run("test", "--ckpt_path", "hpc"), "--ckpt_path hpc: there is no hpc_ckpt_N.ckpt")
    run("fit", *TINY)
    last = RUNS / "version_0/checkpoints/last.ckpt"
    for number in (9, 10):
        Path(f"hpc_ckpt_{number}.ckpt").write_bytes(last.read_bytes())
    outcome = run("test", "--ckpt_path", "hpc")
    assert outcome.code == 0, outcome.err
    assert json.loads(Path("test.json").read_text())["checkpoint"].endswith("hpc_ckpt_10.ckpt")


def test_what_lightning_is_asked_to_print_is_printed(tmp_path: Path) -> None:
    flags = ["--trainer.profiler", "simple", "--trainer.enable_model_summary", "true", "--report", "false"]
    command = [sys.executable, "-m", "customresnet", "fit", *TINY, *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Profiler Report" in done.stdout + done.stderr
    assert "Trainable params" in done.stdout + done.stderr
    assert "GPU available" not in done.stdout + done.stderr


def test_paths_in_a_config_are_relative_to_its_file(run: Command, tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "trainer.yaml").write_text("max_epochs: 1\nrun_name: nested\n")
    (folder / "fit.yaml").write_text("trainer: trainer.yaml\n")
    outcome = run("fit", *DIGITS, *BOUNDS, "--config", str(folder / "fit.yaml"))
    assert outcome.code == 0, outcome.err
    assert Path("lightning_logs/nested/version_0/result.json").is_file()


def test_print_config_and_version(run: Command) -> None:
    outcome = run("schedule", *TINY, "--print_config")
    assert outcome.code == 0
    assert yaml.safe_load(outcome.out)["model"]["lr_max"] == 3e-3
    assert customresnet.__version__ in run("--version").out


# ----------------------------------------------------------------------------------------------------------- endings


def test_a_diverged_run_is_an_error_and_its_result_is_valid_json(run: Command) -> None:
    diverging = ["--model.optimizer", "sgd", "--model.lr_max", "1e9", "--model.lr_min", "1e8"]
    outcome = run("fit", *TINY, *diverging, "--trainer.max_epochs", "3")
    assert outcome.code == 1
    assert "diverged: the training loss is not finite or exploded" in outcome.out
    assert result()["ended"] == "diverged"
    assert "NaN" not in (RUNS / "version_0/result.json").read_text()
    assert "diverged after 1 of 3 epochs" in run("compare", str(RUNS)).out


def test_max_time_ends_a_run_after_a_whole_epoch_and_it_can_be_resumed(
    quiet: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(ckpt_path: str | None = None, **options: Any) -> dict[str, Any]:
        torch.manual_seed(0)
        trainer = Trainer(**{**quiet, "max_epochs": 3, **options})
        return dict(customresnet.fit(classifier(), data(), trainer, ckpt_path, report=False) or {})

    assert fit()["ended"] == "completed"
    a_moment: Any = {"microseconds": 1}
    first = fit(max_time=a_moment)
    assert (first["ended"], first["steps"], first["planned_steps"]) == ("max_time", 5, 15)
    assert "stopped by max_time after 5 of 15 planned steps" in capsys.readouterr().out
    assert fit("last", max_time=a_moment)["steps"] == 10  # one epoch a time, as in a job queue
    assert fit("last", max_time=a_moment)["ended"] == "completed"
    epochs = [(RUNS / f"version_{version}/epochs.csv").read_text() for version in (0, 1)]
    assert epochs[0] == epochs[1]


def test_early_stopping_ends_a_run_and_says_so(run: Command) -> None:
    stop = "--trainer.callbacks EarlyStopping --trainer.callbacks.monitor test/acc --trainer.callbacks.patience 0"
    outcome = run("fit", *TINY, *stop.split(), "--trainer.callbacks.min_delta", "1", "--trainer.max_epochs", "5")
    assert outcome.code == 0, outcome.err
    assert "stopped by EarlyStopping after 10 of 25 planned steps" in outcome.out
    assert (result()["ended"], result()["steps"], result()["planned_steps"]) == ("early_stopping", 10, 25)
    one_line(run("fit", "--ckpt_path", str(RUNS / "version_0")), "this run is finished")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        ("--model.optimizer sgd", ["--model.optimizer: received sgd", "trained with adam"]),
        ("--data.seed 1", ["--data.seed: received 1", "trained with None"]),
        ("--data.batch_size 32", ["--data.batch_size: received 32", "trained with 64"]),
        ("--data.augment.flip 0.1", ["--data.augment.flip: received 0.1", "trained with 0.5"]),
        ("--trainer.gradient_clip_val 1", ["--trainer.gradient_clip_val: received 1"]),
        ("--trainer.precision 64-true", ["--trainer.precision: received 64-true"]),
    ],
)
def test_a_resume_that_would_train_otherwise_is_refused_and_changes_nothing(
    run: Command, flags: str, parts: list[str]
) -> None:
    run("fit", *TINY)
    (RUNS / "version_0/result.json").unlink()
    config = (RUNS / "version_0/config.yaml").read_text()
    one_line(run("fit", "--ckpt_path", "last", *flags.split()), *parts)
    assert (RUNS / "version_0/config.yaml").read_text() == config
    assert run("fit", "--ckpt_path", "last").code == 0


# ----------------------------------------------------------------------------------------------------------- loggers


@pytest.mark.parametrize("order", ["csv", "csv tensorboard", "tensorboard csv"])
def test_any_loggers_that_write_files_share_one_folder_with_the_record(quiet: dict[str, Any], order: str) -> None:
    kinds = {"csv": CSVLogger, "tensorboard": TensorBoardLogger}

    def trainer() -> Trainer:
        return Trainer(logger=[kinds[name](".", name="logs") for name in order.split()], **{**quiet, "max_epochs": 2})

    customresnet.fit(classifier(), data(), trainer(), report=False)
    folder = Path("logs/version_0")
    files = {path.name for path in folder.iterdir()}
    assert files >= {"epochs.csv", "metrics.csv", "result.json", "checkpoints"}
    rows = len((folder / "metrics.csv").read_text().splitlines())
    (folder / "result.json").unlink()
    customresnet.fit(classifier(), data(), trainer(), ckpt_path=str(folder), report=False)
    assert [path.name for path in Path("logs").iterdir()] == ["version_0"]
    assert (folder / "result.json").is_file()
    assert len((folder / "metrics.csv").read_text().splitlines()) >= rows  # a new CSVLogger would delete them


# ------------------------------------------------------------------------------------------------------------ Python


@pytest.mark.parametrize(
    ("callback", "part"),
    [
        (GradientAccumulationScheduler({1: 2}), "accumulate_grad_batches"),
        (BatchSizeFinder(), "batch_size"),
        (LearningRateFinder(), "lr-find"),
        (StochasticWeightAveraging(0.01), "WeightAveraging"),
        (EarlyStopping("val/acc"), "monitors val/acc"),
    ],
)
def test_callbacks_that_break_the_plan_are_refused(quiet: dict[str, Any], callback: pl.Callback, part: str) -> None:
    with pytest.raises(UserError, match=part):
        customresnet.fit(classifier(), data(), Trainer(callbacks=[callback], **quiet))


def test_callbacks_that_do_not_break_it_work(quiet: dict[str, Any]) -> None:
    callbacks = [Timer(duration={"minutes": 5}), ModelCheckpoint("own", save_top_k=-1), TQDMProgressBar(0)]
    callbacks.append(ModelPruning("l1_unstructured", amount=0.5, use_global_unstructured=True))
    found = customresnet.fit(classifier(), data(), Trainer(callbacks=callbacks, max_epochs=1), report=False)
    assert found is not None
    assert found["ended"] == "completed"
    assert len(list(Path("own").glob("*.ckpt"))) == 1


@pytest.mark.parametrize(
    "plugin",
    [AsyncCheckpointIO(TorchCheckpointIO()), MixedPrecision("bf16-mixed", "cpu")],
    ids=lambda p: type(p).__name__,
)
def test_plugins_are_used(quiet: dict[str, Any], plugin: Any) -> None:
    found = customresnet.fit(classifier(), data(), Trainer(plugins=[plugin], **quiet), report=False)
    assert found is not None
    assert (RUNS / "version_0/checkpoints/last.ckpt").is_file()
    assert isinstance(plugin, AsyncCheckpointIO) or found["precision"] == "bf16-mixed"


def test_a_tuner_works_on_the_trainer(quiet: dict[str, Any]) -> None:
    unknown = ImageClassifier(width=4)
    finder = Tuner(Trainer(**{**quiet, "max_epochs": 5})).lr_find(unknown, datamodule=data(), num_training=15)
    assert finder is not None
    assert len(finder.results["lr"]) == 15
    module = data()
    Tuner(Trainer(**quiet)).scale_batch_size(ImageClassifier(width=4), datamodule=module, max_trials=2, init_val=16)
    assert module.batch_size == 32


def test_plain_loaders_and_other_peoples_data_modules_work(quiet: dict[str, Any]) -> None:
    images = TensorDataset(torch.randn(64, 3, 32, 32), torch.randint(0, 10, (64,)))

    class Module(pl.LightningDataModule):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(images, 32)

        val_dataloader = train_dataloader

    trainer, model = Trainer(**quiet), classifier()
    trainer.fit(model, DataLoader(images, 32), DataLoader(images, 32))
    assert trainer.global_step == 2
    assert set(trainer.test(model, dataloaders=DataLoader(images, 32), verbose=False)[0]) == {"test/loss", "test/acc"}
    Trainer(**quiet).fit(classifier(), datamodule=Module())
    unlabeled = Trainer(**quiet).predict(model, dataloaders=DataLoader(images.tensors[0], 32))
    labeled = Trainer(**quiet).predict(model, dataloaders=DataLoader(images, 32))
    assert unlabeled is not None
    assert labeled is not None
    for one, other in zip(unlabeled, labeled, strict=True):
        assert torch.equal(one, other)
    predicted = Trainer(**quiet).predict(model, datamodule=data())
    assert predicted is not None
    assert sum(len(batch) for batch in predicted) == 360


def test_other_peoples_modules_train_on_the_data_module(quiet: dict[str, Any]) -> None:
    class Linear(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3 * 32 * 32, 10)

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(self.layer(batch[0].flatten(1)), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adagrad(self.parameters())

    trainer = Trainer(**quiet)
    trainer.fit(Linear(), datamodule=data())
    assert trainer.global_step == 5


def test_parameters_can_be_flattened() -> None:
    model = classifier()
    assert len(torch.nn.utils.parameters_to_vector(model.parameters())) == sum(p.numel() for p in model.parameters())


def test_a_second_fit_on_one_trainer_says_why_not(quiet: dict[str, Any]) -> None:
    trainer = Trainer(**quiet)
    customresnet.fit(classifier(), data(), trainer, report=False)
    with pytest.raises(UserError, match="create a new Trainer"):
        customresnet.fit(classifier(), data(), trainer)


def test_load_from_checkpoint_and_torchscript_work(quiet: dict[str, Any]) -> None:
    customresnet.fit(classifier(), data(), Trainer(**quiet), report=False)
    model = ImageClassifier.load_from_checkpoint(next(Path().rglob("last.ckpt"))).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        traced = model.to_torchscript(method="trace", example_inputs=images)
        assert torch.allclose(traced(images), model(images), atol=1e-5)


GUIDE = (Path(__file__).parents[1] / "docs/plain-lightning.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_plain_lightning_cli_fits_tests_and_predicts_with_our_classes(tmp_path: Path) -> None:
    """The script of docs/plain-lightning.md, as written there."""
    script = re.findall(r"```python\n(.*?)```", GUIDE, re.S)[0]
    (tmp_path / "main.py").write_text(script)
    assert len(script.strip().splitlines()) <= 6
    commands = re.findall(r"^python main.py (.*)$", GUIDE, re.M)
    assert [command.split()[0] for command in commands] == ["fit", "test", "predict"]
    for command in commands:
        words = [sys.executable, "main.py", *command.split()]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
