"""What each run predicts for its test images, and which runs share a data set."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from torch import nn

from customresnet.analysis.evaluation.predictions import DataOptions, Predictions, predict
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs.checkpoint import load_network, read_checkpoint
from customresnet.runs.record import RunRecord
from customresnet.runtime.errors import UserError
from customresnet.runtime.formatting import data_name, few

ALONE = "no other run was tested on the same images"
UNKNOWN_DATA = "unknown data"


@dataclass
class Evaluations:
    """What the runs predict.

    Attributes:
        shared: For each set of test images: what each run predicts for them, by run name.
        skipped: Why the other runs were not evaluated, by run name.
    """

    shared: list[dict[str, Predictions]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


def by_data_set(compared: list[RunRecord]) -> dict[str, list[RunRecord]]:
    """The runs by the name of their data set: its folder's path if two folders have the same name."""
    groups: dict[tuple[str, Path | None], list[RunRecord]] = {}
    for run in compared:
        groups.setdefault(_data_set(*run.data), []).append(run)
    names = [data_name(*key) for key in groups]
    named = zip(groups.items(), names, strict=True)
    return {
        f"{key[0]} {key[1]}" if names.count(name) > 1 else name or UNKNOWN_DATA: runs for (key, runs), name in named
    }


def _data_set(source: str, root: Path | None) -> tuple[str, Path | None]:
    """Equal for the same images. The root matters only for ``folder``."""
    return source, root.resolve() if root and source == "folder" else None


def evaluate_runs(compared: list[RunRecord], data: DataOptions = DataOptions()) -> Evaluations:
    """Run each network once over its test images, if another run was tested on them too."""
    found = Evaluations()
    groups: dict[object, dict[str, tuple[nn.Module, Preprocessing, DataOptions]]] = {}
    for run in compared if len(compared) > 1 else []:
        with _skipping(run.name, found.skipped):
            if not run.checkpoint:
                raise UserError("no checkpoint")
            checkpoint = read_checkpoint(run.checkpoint)
            prep = Preprocessing.from_checkpoint(checkpoint)
            where = data.of_run(prep, run.config)
            networks = groups.setdefault((_data_set(where.source or "", where.root), where.test_share), {})
            networks[run.name] = load_network(checkpoint), prep, where
    for networks in groups.values():
        predictions = {}
        for name, (network, prep, where) in networks.items() if len(networks) > 1 else ():
            with _skipping(name, found.skipped):
                images = _read(where, prep.image_size).in_order_of(prep.classes)
                if images.classes != prep.classes:
                    known = few(images.classes)
                    raise UserError(f"its classes are {few(prep.classes)}, those of the images {known}")
                predictions[name] = predict(network, images, prep)
        _read.cache_clear()
        if len(predictions) > 1:
            found.shared.append(predictions)
        else:
            found.skipped |= {name: ALONE for name in networks if name not in found.skipped}
    return found


@contextmanager
def _skipping(run: str, skipped: dict[str, str]) -> Iterator[None]:
    """Note why a run cannot be evaluated, without the backticks that the command line replaces."""
    try:
        yield
    except UserError as error:
        skipped[run] = str(error).removeprefix("`ckpt_path` ").replace("`", "")
    except (LookupError, TypeError, ValueError, RuntimeError) as error:  # from another version, or edited by hand
        skipped[run] = f"its checkpoint or config.yaml is invalid ({' '.join(str(error).split())[:80]})"


@cache
def _read(where: DataOptions, image_size: int) -> LabelledImages:
    return where.load(image_size)
