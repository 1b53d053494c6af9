"""RunLogger: TensorBoard, also when the disk is full for a while or a run is resumed."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger

from customresnet.runs.folders import LOGS


class RunLogger(TensorBoardLogger):
    """Lightning's TensorBoardLogger, except that a failed write is a warning: it must not end a training."""

    failing = False

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        with failures_as_warnings(self):
            super().log_metrics(metrics, step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        with failures_as_warnings(self):
            super().log_hyperparams(*args, **kwargs)

    def save(self) -> None:
        with failures_as_warnings(self):
            super().save()

    def finalize(self, status: str) -> None:
        with failures_as_warnings(self):
            super().finalize(status)


@contextmanager
def failures_as_warnings(logger: TensorBoardLogger) -> Iterator[None]:
    """Print a warning if TensorBoard's files cannot be written, and open a new one for the next point."""
    try:
        yield
        logger.failing = False  # type: ignore[attr-defined]
    except (OSError, ValueError) as error:
        cause = error.__cause__ if isinstance(error, ValueError) else error  # Lightning wraps it
        if not isinstance(cause, OSError):
            raise
        if not getattr(logger, "failing", False):  # once, not at every step
            print(f"warning: could not write to TensorBoard ({cause.strerror or cause})", file=sys.stderr)
        logger.failing = True  # type: ignore[attr-defined]
        logger.experiment.file_writer = logger.experiment.all_writers = None  # its thread has ended


def tensorboard_logger(root: Path, run_name: str, version: str | None = None, step: int | None = None) -> RunLogger:
    """The logger of a run in ``root``: a new version, unless one is given.

    TensorBoard hides points that the run logged from ``step`` on, before it was resumed there.
    """
    # absolute, so that a run resumed from another folder still finds its best checkpoint
    return RunLogger(str(root.resolve() / LOGS), run_name, version, default_hp_metric=False, purge_step=step)
