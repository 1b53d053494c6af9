"""A Trainer for measurements: it logs nothing, prints nothing and leaves no files."""

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl


@contextmanager
def probe_trainer(**options: Any) -> Iterator[pl.Trainer]:
    """A Trainer without evaluations and Lightning's warnings. ``options`` are its length and ``shared_options``."""
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="pytorch_lightning|torchmetrics")
        yield pl.Trainer(
            limit_val_batches=0,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=scratch,
            **{"accelerator": "cpu", "devices": 1, **options},
        )


def shared_options(trainer: pl.Trainer) -> dict[str, Any]:
    """The options that a probe shares with the run's Trainer: the device, and those that affect a step."""
    device = trainer.strategy.root_device
    return {
        "accelerator": device.type,
        "devices": 1 if device.index is None else [device.index],
        "precision": trainer.precision,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "gradient_clip_algorithm": trainer.gradient_clip_algorithm,
    }
