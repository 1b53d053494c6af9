"""Which test images each run classifies correctly."""

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from customresnet.analysis.evaluation.predictions import DataOptions, predict
from customresnet.data import sources
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.sources import SourceName
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs.checkpoint import load_network, read_checkpoint
from customresnet.runs.record import RunRecord
from customresnet.runtime.errors import UserError

ALONE = "no other run was tested on the same images"


@dataclass
class Evaluations:
    """Which images the runs classified correctly.

    Attributes:
        correct: For each set of test images: ``(N,)`` bool by run name, whether each image was classified correctly.
        skipped: Why the other runs were not evaluated, by run name.
    """

    correct: list[dict[str, Tensor]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Network:
    """The network of a run, and the source of its test images."""

    run: str
    network: nn.Module
    prep: Preprocessing
    source: SourceName
    root: Path | None

    @property
    def images(self) -> tuple[SourceName, Path | None]:
        """Equal for networks with the same test images. The root matters only for ``folder``."""
        return self.source, self.root.resolve() if self.root and self.source == "folder" else None


def evaluate_runs(compared: list[RunRecord], data: DataOptions = DataOptions()) -> Evaluations:
    """Run each network once over its test images, if another run was tested on them too."""
    found = Evaluations()
    if len(compared) < 2:
        return found
    groups: dict[tuple[SourceName, Path | None], list[_Network]] = {}
    for run in compared:
        try:
            network = _load(run, data)
            groups.setdefault(network.images, []).append(network)
        except UserError as error:
            found.skipped[run.name] = _reason(error)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:  # from another version, or edited by hand
            found.skipped[run.name] = f"its checkpoint or config.yaml is invalid ({' '.join(str(error).split())[:80]})"
    for group in groups.values():
        correct = _evaluate(group, found.skipped) if len(group) > 1 else {}
        if len(correct) > 1:
            found.correct.append(correct)
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


def _evaluate(group: list[_Network], skipped: dict[str, str]) -> dict[str, Tensor]:
    """Evaluate networks with the same test images, which are read once per image size."""
    read: dict[tuple[Path | None, int], LabelledImages | UserError] = {}
    correct = {}
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
            skipped[network.run] = f"its classes are {list(classes)}, those of the images {list(images.classes)}"
        else:
            correct[network.run] = predict(network.network, images, network.prep).correct
    return correct


def _reason(error: UserError) -> str:
    """A message for the page, without the backticks that the command line replaces."""
    return str(error).removeprefix("`ckpt_path` ").replace("`", "")
