"""The result of a run: the content of result.json."""

from dataclasses import dataclass
from typing import TypedDict

from customresnet.runtime.intervals import wilson

Result = TypedDict(
    "Result",
    {
        "train/loss": float,
        "train/acc": float,
        "val/loss": float,
        "val/acc": float,
        "test/loss": float,
        "test/acc": float,
        "test/correct": int,
        "test/images": int,
        "ended": str,
        "epochs": int,
        "steps": int,
        "planned_steps": int,
        "seconds": float,
        "images_per_second": float,
        "lr_max": float | None,
        "lr_min": float | None,
        "parameters": int,
        "seed": int,
        "engine": str,
        "precision": str,
        "compiled": bool,
        "device": str,
        "versions": dict[str, str],
    },
    total=False,
)
"""The content of result.json. Non-finite metrics are None.

``ended`` says why: completed, early_stopping, diverged (the loss is not finite), max_time, interrupted, or stopped.
After the first three, a run is finished; after the others, it can be resumed. Older results lack ``ended``: completed.
"""

FINISHED = ("completed", "early_stopping", "diverged")
"""Endings after which a run cannot be resumed."""


@dataclass(frozen=True)
class Evaluation:
    """The last accuracy that a run recorded, and the number of images. Unknown values are None.

    ``stage`` is ``test``, or ``val`` for a run with held-out images that has not evaluated the test set yet.
    """

    stage: str
    accuracy: float | None
    correct: int | None = None
    images: int | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's 95% interval; None if the number of images is unknown."""
        return None if self.correct is None or not self.images else wilson(self.correct, self.images)
