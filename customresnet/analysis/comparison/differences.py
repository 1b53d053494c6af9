"""Whether runs really differ: every two of them, by their answers to the same test images."""

from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from customresnet.analysis.comparison.mcnemar import Paired, holm, paired
from customresnet.analysis.evaluation import predictions as outputs
from customresnet.analysis.page import Section
from customresnet.analysis.run_images import DataOptions
from customresnet.data import sources
from customresnet.data.labelled_images import LabelledImages
from customresnet.data.sources import SourceName
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.runs.network import load_network
from customresnet.runs.recorded_run import RecordedRun, read_checkpoint
from customresnet.runtime.errors import UserError

LEVEL = 0.05
"""Below it a difference is called one."""
POINTS = "difference in points, 95 % interval"
ALONE = "no other run answers to the same images"


@dataclass
class Answers:
    """What the networks answered.

    Attributes:
        correct: For each set of test images, for each run by its name: ``(N,)`` bool, which images it named rightly.
        silent: Why other runs have no answers, by their names.
    """

    correct: list[dict[str, Tensor]] = field(default_factory=list)
    silent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Asked:
    """A network, and where the images are that it is asked about."""

    name: str
    network: nn.Module
    prep: Preprocessing
    source: SourceName
    root: Path | None

    @property
    def images(self) -> tuple[SourceName, Path | None]:
        """The same for networks that were tested on the same images; those of most sources do not depend on a root."""
        return self.source, self.root.resolve() if self.root and self.source == "folder" else None


def answers(compared: list[RecordedRun], data: DataOptions = DataOptions()) -> Answers:
    """Run each network once over its test images, unless no other run was tested on them."""
    found = Answers()
    if len(compared) < 2:
        return found
    groups: dict[Any, list[_Asked]] = {}
    for run in compared:
        try:
            asked = _load(run, data)
            groups.setdefault(asked.images, []).append(asked)
        except UserError as error:
            found.silent[run.name] = str(error)
        except (LookupError, TypeError, ValueError, RuntimeError) as error:  # another version's, or made by hand
            found.silent[run.name] = f"its checkpoint or config.yaml does not fit ({' '.join(str(error).split())[:80]})"
    for group in groups.values():
        given = _answers_of(group, found.silent) if len(group) > 1 else {}
        if len(given) > 1:
            found.correct.append(given)
        else:
            found.silent |= {asked.name: ALONE for asked in group if asked.name not in found.silent}
    return found


def _load(run: RecordedRun, data: DataOptions) -> _Asked:
    if not run.checkpoint:
        raise UserError("no checkpoint")
    checkpoint = read_checkpoint(run.checkpoint)
    prep = Preprocessing.from_checkpoint(checkpoint)
    source, root = data.place(prep, run.config if "data" in run.config else None)
    return _Asked(run.name, load_network(checkpoint), prep, source, root)


def _answers_of(group: list[_Asked], silent: dict[str, str]) -> dict[str, Tensor]:
    """The answers of networks that were tested on the same images, each set and size of which is read once."""
    read: dict[Any, LabelledImages | UserError] = {}
    correct = {}
    for asked in group:
        place = asked.source, asked.root, asked.prep.image_size
        if place not in read:
            try:
                read[place] = sources.load(asked.source, asked.root, "test", asked.prep.image_size)
            except UserError as error:
                read[place] = error
        images = read[place]
        if isinstance(images, UserError):
            silent[asked.name] = str(images)
        elif images.classes != asked.prep.classes:
            silent[asked.name] = (
                f"its classes are {list(asked.prep.classes)}, those of the images {list(images.classes)}"
            )
        else:
            correct[asked.name] = outputs.run(asked.network, images, asked.prep).correct
    return correct


def differences(given: Answers) -> Section:
    """Every two runs that answered to the same images: who got what right, and whether that could be chance."""
    pairs = [
        (first, second, paired(correct[first], correct[second]))
        for correct in given.correct
        for first, second in combinations(correct, 2)
    ]
    silent = [
        f"{', '.join(name for name, own in given.silent.items() if own == reason)}: {reason}"
        for reason in dict.fromkeys(given.silent.values())
    ]
    view = Section("differences", "Do they really differ?")
    if not pairs:
        view.missing = "; ".join(["it takes two checkpoints that were tested on the same images", *silent])
        return view
    corrected = holm([pair.p_value for _, _, pair in pairs])
    view.facts = {
        name: f"{int(right.sum()):,} of {len(right):,} ({right.double().mean():.2%})"
        for correct in given.correct
        for name, right in correct.items()
    }
    rows = [
        {
            "first": first,
            "second": second,
            **asdict(pair),
            "difference": pair.difference,
            "interval": list(pair.interval),
            "p_value": pair.p_value,
            "holm": p,
        }
        for (first, second, pair), p in zip(pairs, corrected, strict=True)
    ]
    view.numbers = {"pairs": rows, "without_answers": given.silent}
    view.table = [_shown(*pair, p, len(pairs) > 1) for pair, p in zip(pairs, corrected, strict=True)]
    view.text = [*_sentences(len(pairs)), *(f"Not among them: {one}." for one in silent)]
    return view


def _shown(first: str, second: str, pair: Paired, corrected: float, several: bool) -> dict[str, Any]:
    """A line of the table."""
    low, high = pair.interval
    apart = f"differ: p {_p(corrected, '= ')}" + " by Holm" * several
    return {
        "pair": f"{first} and {second}",
        "verdict": apart if corrected < LEVEL else f"no difference that {pair.images:,} images could show",
        POINTS: f"{100 * pair.difference:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})",
        "p": _p(pair.p_value),
        **({"p by Holm": _p(corrected)} if several else {}),
        "both right": pair.both,
        "only first": pair.only_first,
        "only second": pair.only_second,
        "both wrong": pair.neither,
    }


def _p(value: float, equals: str = "") -> str:
    return f"{equals}{value:.2g}" if value >= 1e-4 else "< 0.0001"


def _sentences(pairs: int) -> list[str]:
    text = [
        "Every network was run over its test images once, for this page, and runs that share them are compared two "
        "by two. Images that both got right, or both wrong, do not tell the two apart; McNemar's exact test asks how "
        "likely those that only one got right would fall to the two so unequally by chance. The difference is the "
        "first's accuracy less the second's, with the interval of Agresti and Min (2005).",
        "This is about these networks, not their recipes: with another seed a recipe gives another network.",
    ]
    if pairs > 1:
        text.append(
            f"Of {pairs} tests, one in {round(1 / LEVEL)} finds a difference by chance where there is none. Holm's "
            "correction makes up for their number: with it, the chance of even one such error among all of them is at "
            f"most {LEVEL:.0%}. The verdicts go by it."
        )
    return text
