"""What each run predicts for its test images, and which runs share a data set."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from customresnet.analysis.evaluation.predictions import DataOptions, Predictions, predict
from customresnet.data import sources
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.sources import SourceName
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


@dataclass(frozen=True)
class _Network:
    """The network of a run, and the source of its test images."""

    run: str
    network: nn.Module
    prep: Preprocessing
    source: SourceName
    root: Path | None


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
    if len(compared) < 2:
        return found
    groups: dict[tuple[str, Path | None], list[_Network]] = {}
    for run in compared:
        try:
            network = _load(run, data)
            groups.setdefault(_data_set(network.source, network.root), []).append(network)
        except UserError as error:
            found.skipped[run.name] = _reason(error)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:  # from another version, or edited by hand
            found.skipped[run.name] = f"its checkpoint or config.yaml is invalid ({' '.join(str(error).split())[:80]})"
    for group in groups.values():
        predictions = _evaluate(group, found.skipped) if len(group) > 1 else {}
        if len(predictions) > 1:
            found.shared.append(predictions)
        else:
            found.skipped |= {network.run: ALONE for network in group if network.run not in found.skipped}
    return found


def _load(run: RunRecord, data: DataOptions) -> _Network:
    if not run.checkpoint:
        raise UserError("no checkpoint")
    checkpoint = read_checkpoint(run.checkpoint)
    prep = Preprocessing.from_checkpoint(checkpoint)
    source, root = data.locate(prep, run.config)
    return _Network(run.name, load_network(checkpoint), prep, source, root)


def _evaluate(group: list[_Network], skipped: dict[str, str]) -> dict[str, Predictions]:
    """Evaluate networks with the same test images, which are read once per image size."""
    read: dict[tuple[Path | None, int], LabelledImages | UserError] = {}
    predictions = {}
    for network in group:
        key = network.root, network.prep.image_size
        if key not in read:
            try:
                sources.download(network.source, network.root)
                read[key] = sources.load(network.source, network.root, "test", network.prep.image_size)
            except UserError as error:
                read[key] = error
        images, classes = read[key], network.prep.classes
        if isinstance(images, UserError):
            skipped[network.run] = _reason(images)
        elif images.classes != classes:
            skipped[network.run] = f"its classes are {few(classes)}, those of the images {few(images.classes)}"
        else:
            predictions[network.run] = predict(network.network, images, network.prep)
    return predictions


def _reason(error: UserError) -> str:
    """A message for the page, without the backticks that the command line replaces."""
    return str(error).removeprefix("`ckpt_path` ").replace("`", "")
