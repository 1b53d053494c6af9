"""Attributes of Lightning's Trainer that it sets without declaring their types."""

import pytorch_lightning as pl


def is_fast_dev_run(trainer: pl.Trainer) -> bool:
    """Whether the run is a quick check of the code, of a few batches."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def callbacks_of(trainer: pl.Trainer) -> list[pl.Callback]:
    """The trainer's callbacks; changing the list changes the trainer's."""
    return trainer.callbacks  # type: ignore[attr-defined]
