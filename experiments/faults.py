"""Kill short runs at random instants, resume them, and compare them with runs that nobody disturbed.

    python -m experiments.faults --kills 50          # make faults
    TMPDIR=/dev/shm python -m experiments.faults --work .   # runs and temporary files on different file systems
    python -m experiments.faults --disks             # full, filling and read-only disks; needs root, to mount tmpfs

Every run trains a small network on the digits for three epochs of ten steps. Runs alternate between both transform
backends, and between checkpoints at every epoch's end and every three steps. A third of the kills are aimed at the
moment in which a checkpoint is written. A killed run is started again with ``--auto_resume`` until it has ended. Then
its weights must equal those of the undisturbed run bit for bit, its epochs.csv and TensorBoard's points must be the
same, and no kill may have cost more steps than lie between two checkpoints.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytorch_lightning as pl
import torch

from customresnet.cli import main as cli
from customresnet.runs.durable import newest_intact
from customresnet.runs.folders import last_checkpoint, newest_run, versions

STEPS, EPOCHS = 10, 3
ENGINES = ("batch", "albumentations")
RUN = Path("lightning_logs/faults/version_0")
NAME = RUN.parent.name
STEP_LOG = "steps.txt"
"""The newest step of a run, which a killed process leaves in its folder."""


class LogSteps(pl.Callback):
    """Write every finished step to a file, without a buffer."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        Path(STEP_LOG).write_text(str(trainer.global_step))


def words(engine: str, every: int | None, width: int) -> list[str]:
    """The command line of a run."""
    flags = {
        "--config": "demo",
        "--trainer.run_name": NAME,
        "--trainer.max_epochs": EPOCHS,
        "--trainer.callbacks": "experiments.faults.LogSteps",
        "--model.width": width,
        "--model.dropout": 0.1,
        "--model.lr_max": 3e-3,
        "--model.lr_min": 1e-4,
        "--data.batch_size": 64,
        "--data.train_size": 64 * STEPS,
        "--data.engine": engine,
        "--report": "false",
    }
    if every:
        flags["--checkpoint_every_n_steps"] = every
    return ["fit", "--auto_resume", *(str(word) for flag in flags.items() for word in flag)]


def start(folder: Path, arguments: list[str]) -> int:
    """Run a command in a forked process, which has torch and Lightning already; return its id."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        cli.main(arguments)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Wait for a process; return its exit code, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_of(folder: Path) -> Path:
    """The folder of the newest run: a process killed before its first checkpoint leaves an empty one before it."""
    return newest_run(folder, NAME) or folder / RUN


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_of(folder) / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The points that TensorBoard shows of a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_of(folder)), {"scalars": 0}).Reload()
    tags = [tag for tag in events.Tags()["scalars"] if "hp_metric" not in tag]
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


@dataclass
class Tally:
    """What the runs came to."""

    kills: Counter[str] = field(default_factory=Counter)
    lost: list[int] = field(default_factory=list)  # steps that a kill cost
    faults: list[str] = field(default_factory=list)
    runs: int = 0


def disturb(
    folder: Path, whole: Path, arguments: list[str], interval: int, duration: float, chance: random.Random, tally: Tally
) -> None:
    """Kill a run about three times, resume it to its end, and compare it with the undisturbed one."""
    tally.runs += 1
    for attempt in range(20):
        child = start(folder, arguments)
        if attempt < 3:
            kill(child, folder, duration, chance, tally)
        code = wait(child)
        if code == 0:
            break
        if code != -signal.SIGKILL:
            tally.faults.append(f"{folder.name}: exit code {code}")
            return
        record_loss(folder, interval, tally)
    for name, same in (
        ("weights", equal(weights(folder), weights(whole))),
        ("epochs.csv", (run_of(folder) / "epochs.csv").read_text() == (whole / RUN / "epochs.csv").read_text()),
        ("TensorBoard", points(folder) == points(whole)),
        ("one run", sum(last_checkpoint(run).is_file() for run in versions(folder, NAME)) == 1),
    ):
        if not same:
            tally.faults.append(f"{folder.name}: {name} differs")


def kill(child: int, folder: Path, duration: float, chance: random.Random, tally: Tally) -> None:
    """Kill a process at a random instant, or while it writes a checkpoint."""
    aimed = chance.random() < 1 / 3
    deadline = time.monotonic() + chance.uniform(0.1, 1.1) * duration
    writes, seen = chance.randrange(4), False
    while time.monotonic() < deadline and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        writing = any(folder.glob(f"{RUN.parent}/*/checkpoints/.last.ckpt.part"))
        if aimed and writing and not seen:
            if writes == 0:
                time.sleep(chance.uniform(0, 0.01))
                break
            writes -= 1
        seen = writing
        time.sleep(0.0005)
    if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        os.kill(child, signal.SIGKILL)
        tally.kills["at a write" if aimed else "at random"] += 1


def record_loss(folder: Path, interval: int, tally: Tally) -> None:
    """Count the steps that a kill cost: those after the newest checkpoint."""
    log, last = folder / STEP_LOG, last_checkpoint(run_of(folder))
    if not (log.is_file() and log.read_text() and last.is_file()):
        return
    kept = torch.load(newest_intact(last), weights_only=True)["global_step"]
    lost = int(log.read_text()) - kept
    tally.lost.append(lost)
    if lost > interval:
        tally.faults.append(f"{folder.name}: {lost} steps lost, {interval} between checkpoints")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def kills(count: int, seed: int, work: Path, width: int) -> Tally:
    """Disturb runs until ``count`` processes were killed."""
    chance, tally = random.Random(seed), Tally()
    whole: dict[str, Path] = {}
    duration = 0.0
    for engine in ENGINES:
        begun = time.monotonic()
        code = wait(start(work / f"whole-{engine}", words(engine, None, width)))
        assert code == 0, (work / f"whole-{engine}" / "output.txt").read_text()
        duration, whole[engine] = time.monotonic() - begun, work / f"whole-{engine}"
    while sum(tally.kills.values()) < count:
        engine, every = ENGINES[tally.runs % 2], (None, 3)[tally.runs // 2 % 2]
        folder = work / f"run{tally.runs}-{engine}-{every or 'epoch'}"
        disturb(folder, whole[engine], words(engine, every, width), every or STEPS, duration, chance, tally)
        if not any(fault.startswith(f"{folder.name}:") for fault in tally.faults):
            shutil.rmtree(folder)
    return tally


# ---------------------------------------------------------------------------------------------------------------- disks


@contextmanager
def tmpfs(folder: Path, size: int) -> Iterator[Path]:
    """A file system of ``size`` bytes in memory."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        while subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True).returncode == 0:
            pass


def after_epochs(folder: Path, epochs: int) -> None:
    """Wait until a run has recorded this many epochs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        output = folder / "output.txt"
        if output.is_file() and output.read_text(errors="replace").count("\nepoch ") >= epochs:
            return
        time.sleep(0.01)
    raise TimeoutError(f"{folder}: no {epochs} epochs in a minute")


def disks(work: Path, width: int) -> dict[str, str]:
    """Train on disks that fail; return what became of each run."""
    arguments = words("batch", None, width)
    whole = work / "whole"
    assert wait(start(whole, arguments)) == 0
    size = (whole / RUN / "checkpoints/last.ckpt").stat().st_size
    outcomes = {}

    def run(name: str, room: int, disturb: Callable[[Path, int], None], where: str = "disk") -> None:
        temporary = work / name / "tmp"
        temporary.mkdir(parents=True)
        os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
        with tmpfs(work / name / "disk", room) as disk:
            child = start(disk, arguments)
            disturb(disk, child)
            code = wait(child)
            output = (disk / "output.txt").read_text(errors="replace")
            found = disk / RUN / "checkpoints/last.ckpt" if where == "disk" else temporary / "faults-last.ckpt"
            saved = found.is_file() and equal(torch.load(found, weights_only=True)["state_dict"], weights(whole))
            warned = output.count("warning: could not write")
            outcomes[name] = (
                f"exit code {code}, {warned} warnings, final network {'intact' if saved else 'MISSING'} in its "
                f"{'place' if where == 'disk' else 'temporary folder'}, {output.count('Traceback')} tracebacks"
            )

    def fill(disk: Path, child: int) -> None:
        after_epochs(disk, 1)
        with suppress(OSError), (disk / "filler").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
        after_epochs(disk, 2) if (disk / "output.txt").stat().st_size else time.sleep(1)
        (disk / "filler").unlink()

    def read_only(disk: Path, child: int) -> None:
        after_epochs(disk, 1)
        subprocess.run(["mount", "--bind", str(disk), str(disk)], check=True)  # it has open files
        subprocess.run(["mount", "-o", "remount,bind,ro", str(disk)], check=True)

    def vanish(disk: Path, child: int) -> None:
        after_epochs(disk, 1)
        shutil.rmtree(disk / RUN)

    run("one checkpoint fits, two do not", int(1.5 * size) + 600_000, lambda disk, child: None, where="temporary")
    run("fills up and is freed", 8 * size + 4_000_000, fill)
    run("turns read-only", 8 * size + 4_000_000, read_only, where="temporary")
    run("the run's folder is deleted", 8 * size + 4_000_000, vanish)
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="processes to kill (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the instants (%(default)s)")
    parser.add_argument("--width", type=int, default=8, help="width of the network (%(default)s)")
    parser.add_argument("--work", type=Path, help="existing folder for the runs (default: a temporary one)")
    parser.add_argument("--disks", action="store_true", help="test disks that fail instead of kills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        if options.disks:
            print(json.dumps(disks(Path(work), options.width), indent=1))
            return
        tally = kills(options.kills, options.seed, Path(work), options.width)
    spread = f"{min(tally.lost)} to {max(tally.lost)}" if tally.lost else "none"
    print(f"{tally.runs} runs, kills: {dict(tally.kills)}, steps lost by a kill: {spread}")
    print("\n".join(tally.faults) or "every run ended as if undisturbed")
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
