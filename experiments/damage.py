"""Damaged and hostile files, read by the commands: python -m experiments.damage --seed 0 --count 500

Each case damages one file of a small run on the digits, chosen by a seeded generator, and runs a command that reads it
in a process of its own, with a limit of time and memory. docs/reliability.md has the figures.
"""

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from customresnet.cli.main import COMMANDS, command_function, main
from customresnet.runs.checkpoint import read_checkpoint
from customresnet.runtime.errors import UserError

Trusted = dict[str, dict[str, torch.Tensor]]
"""The weights of the run's intact checkpoints, by their path."""
SECONDS, CLOCK = 20, 120
"""Limits of a case: of processor time, and by the clock, which also runs while other processes have the cores."""
MEMORY = 4 * 2**30
MARKER = "payload-was-executed"
RUN = "lightning_logs/demo/version_0"
LAST = f"{RUN}/checkpoints/last.ckpt"
FINISHED = "lightning_logs/finished/version_0"
WEIGHTS = "weights.safetensors"
SMALL = ["--config", "demo", "--model.width", "4", "--data.train_size", "200", "--data.batch_size", "100"]
BOUNDS = ["--model.lr_max", "3e-3", "--model.lr_min", "1e-4"]
QUICK = ["--report", "false", "--trainer.enable_progress_bar", "false"]
UNNAMED = re.compile(r"error: (--trainer: )?\w*(Error|Exception|Warning):")
"""Messages that name an exception instead of what is wrong."""


@dataclass
class Case:
    """A damaged file and the command that reads it."""

    kind: str
    damage: str
    words: list[str]


@dataclass
class Outcome:
    """How a case ended: right, message, unnamed, traceback, crash, hang, payload, wrong tensors or stray file."""

    kind: str
    damage: str
    words: list[str]
    result: str
    seconds: float
    code: int
    said: str


class Stop(pl.Callback):
    """End a run in its second epoch, so that it can be resumed."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


class Payload:
    """A pickle that runs code."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {MARKER}",)


def prepare(folder: Path) -> None:
    """Make an unfinished run, its weights, a sweep that can be resumed, images, and modules that must not run."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        stop = ["--trainer.callbacks", "experiments.damage.Stop"]
        with contextlib.suppress(SystemExit):
            main(["fit", *SMALL, *BOUNDS, *QUICK, "--trainer.max_epochs", "2", *stop])
        config = yaml.safe_load(Path(RUN, "config.yaml").read_text())
        config["trainer"]["callbacks"] = None
        Path(RUN, "config.yaml").write_text(yaml.safe_dump(config))
        main(["lr-sweep", *SMALL, "--points", "2", "--steps", "1", "--trainer.run_name", "sweep"])
        sweep = Path("lightning_logs/sweep/version_0/lr_sweep.json")
        content = json.loads(sweep.read_text())
        sweep.write_text(json.dumps({**content, "points": content["points"][:1], "finished": False}))
        shutil.copytree(RUN, FINISHED)
        main(["fit", "--ckpt_path", FINISHED, *QUICK])
        main(["export", "--ckpt_path", FINISHED, "--output", WEIGHTS])
        pixels = np.random.default_rng(0)
        for split in ("train", "test"):
            for name in ("cat", "dog"):
                Path("images", split, name).mkdir(parents=True)
                for number in range(3):
                    image = Image.fromarray(pixels.integers(0, 256, (32, 32, 3), dtype=np.uint8))
                    image.save(f"images/{split}/{name}/{number}.{'jpg' if number else 'png'}")
        with zipfile.ZipFile("images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(Path("images").rglob("*.*")):
                archive.write(path)
        evil = f"open({MARKER!r}, 'w').close()\nimport torch.nn as nn\nimport pytorch_lightning as pl\n"
        Path("evil.py").write_text(evil + "class Net(nn.Linear): pass\nclass Cb(pl.Callback): pass\n")


# ------------------------------------------------------------------------------------------------- damage of bytes


def flip(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits flipped anywhere."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def swap(data: bytes, rng: random.Random) -> bytes:
    """Two blocks exchanged."""
    size = max(1, len(data) // 8)
    a, b = sorted(rng.sample(range(0, len(data) - size + 1, size) or [0, 0], 2)) if len(data) > 16 else (0, 0)
    return data[:a] + data[b : b + size] + data[a + size : b] + data[a : a + size] + data[b + size :]


BYTES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": lambda data, rng: data[: rng.randrange(len(data))],
    "bits flipped": flip,
    "blocks swapped": swap,
    "emptied": lambda data, rng: b"",
    "garbage": lambda data, rng: rng.randbytes(rng.choice((10, 1000, len(data)))),
    "zeros within": lambda data, rng: data[: len(data) // 3] + bytes(len(data) // 3) + data[2 * (len(data) // 3) :],
    "appended": lambda data, rng: data + rng.randbytes(100),
}


def damage_bytes(path: str, rng: random.Random) -> str:
    name = rng.choice(list(BYTES))
    Path(path).write_bytes(BYTES[name](Path(path).read_bytes(), rng))
    return name


# ----------------------------------------------------------------------------------------------- damage of content


def paths_in(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The keys that lead to every value."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in items:
        yield (*above, key)
        yield from paths_in(value, (*above, key))


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REMOVED = object()
VALUES: dict[str, Callable[[Any], Any]] = {
    "removed": lambda old: REMOVED,
    "null": lambda old: None,
    "text": lambda old: "many",
    "negative": lambda old: -1,
    "huge": lambda old: 10**30,
    "large": lambda old: 100_000,
    "not a number": lambda old: float("nan"),
    "infinite": lambda old: float("inf"),
    "list": lambda old: [1, "a"],
    "mapping": lambda old: {"a": 1},
    "deep": lambda old: deep(200),
    "true": lambda old: True,
    "another shape": lambda old: torch.zeros(7, 3) if isinstance(old, torch.Tensor) else [old, old],
    "without storage": lambda old: torch.zeros(1).expand(10**6, 10**6),
    "import path": lambda old: "evil.Net",
    "class path": lambda old: {"class_path": "evil.Net", "init_args": {"in_features": 2, "out_features": 2}},
}


def change(content: Any, rng: random.Random, *, tensors: bool) -> str:
    """Replace one value at random; values near the top are as probable as all those deep inside."""
    found = list(paths_in(content))
    depth = rng.randint(1, max(map(len, found)))
    path = rng.choice([path for path in found if len(path) <= depth])
    names = [name for name in VALUES if tensors or name not in ("another shape", "without storage")]
    name = rng.choice(names)
    parent = content
    for key in path[:-1]:
        parent = parent[key]
    value = VALUES[name](parent[path[-1]])
    if value is REMOVED:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return f"{'.'.join(map(str, path))[:60]}: {name}"


# ----------------------------------------------------------------------------------------------------------- cases

READERS = (
    ["test", "--ckpt_path", RUN, "--config", "demo"],
    ["fit", "--ckpt_path", RUN, *QUICK],
    ["fit", "--ckpt_path", LAST, *QUICK],
    ["predict", "--ckpt_path", LAST, "--images", "images/test/cat/0.png"],
    ["summary", "--ckpt_path", LAST],
    ["export", "--ckpt_path", RUN],
    ["compare", LAST],
    ["report", "--ckpt_path", LAST, "--gallery.images", "0"],
)


def checkpoint_bytes(rng: random.Random) -> Case:
    shutil.rmtree(RUN) if rng.random() < 0.3 else None
    if not Path(RUN).is_dir():
        shutil.copytree(FINISHED, RUN)
    if rng.random() < 0.7:
        Path(RUN, "checkpoints/last.previous.ckpt").unlink(missing_ok=True)
    return Case("checkpoint, bytes", damage_bytes(LAST, rng), list(rng.choice(READERS)))


def checkpoint_content(rng: random.Random) -> Case:
    checkpoint = torch.load(LAST, weights_only=True)
    part = rng.choice(("", "", "hyper_parameters", "preprocessing", "optimizer_states", "loops", "lr_schedulers"))
    damage = change(checkpoint[part] if part else checkpoint, rng, tensors=True)
    torch.save(checkpoint, LAST)
    words = (
        READERS[rng.randrange(1, 3)] if part in ("optimizer_states", "loops", "lr_schedulers") else rng.choice(READERS)
    )
    return Case("checkpoint, content", f"{part} {damage}".strip(), list(words))


def bomb(path: str) -> None:
    """A .ckpt whose entries take a thousand times its size."""
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, bytes(2 * 10**8) if name.endswith("data/0") else data)


def checkpoint_hostile(rng: random.Random) -> Case:
    name = rng.choice(("code", "code within", "zip bomb", "old pickle", "another project", "itself", "fifo", "network"))
    checkpoint = torch.load(LAST, weights_only=True)
    if name == "code":
        torch.save(Payload(), LAST)
    elif name == "code within":
        torch.save({**checkpoint, "callbacks": Payload()}, LAST)
    elif name == "zip bomb":
        bomb(LAST)
    elif name == "old pickle":
        torch.save(Payload(), LAST, _use_new_zipfile_serialization=False)
    elif name == "another project":
        torch.save({"state_dict": {}, "epoch": 1}, LAST)
    elif name == "itself":
        checkpoint["callbacks"]["itself"] = checkpoint["callbacks"]
        torch.save(checkpoint, LAST)
    elif name == "fifo":
        Path(LAST).unlink()
        os.mkfifo(LAST)
    else:
        path = rng.choice(("evil.Net", "torch.hub.load", "os.system", "torch.jit.load"))
        checkpoint["hyper_parameters"].update(network={"class_path": path, "init_args": {}}, width=None)
        torch.save(checkpoint, LAST)
        Path(RUN, "config.yaml").unlink()
    return Case("checkpoint, hostile", name, list(rng.choice(READERS)))


def weights(rng: random.Random) -> Case:
    if rng.random() < 0.5:
        damage = damage_bytes(WEIGHTS, rng)
    else:
        with safe_open(WEIGHTS, "pt") as file:
            metadata, state = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        key = rng.choice([name for name in metadata if name not in ("description", "sha256")])
        if rng.random() < 0.3:
            metadata[key] = rng.choice(("", "{", "null", "[" * 100_000, "1e999", '{"a": NaN}'))
            damage = f"{key} is {metadata[key][:9]}"
        else:
            content = {key: json.loads(metadata[key]) if key != "pytorch-lightning_version" else metadata[key]}
            damage = change(content, rng, tensors=False)
            metadata = {**metadata, **{name: json.dumps(value) for name, value in content.items()}}
        if rng.random() < 0.2:
            state["net.extra"] = torch.zeros(3)
        metadata.pop("sha256")
        save_file(state, WEIGHTS, metadata=metadata)
    commands = (
        ["test", "--ckpt_path", WEIGHTS],
        ["predict", "--ckpt_path", WEIGHTS, "--images", "images/test/cat/0.png"],
        ["summary", "--ckpt_path", WEIGHTS],
        ["export", "--ckpt_path", WEIGHTS, "--output", "again.safetensors"],
        ["compare", WEIGHTS],
        ["report", "--ckpt_path", WEIGHTS, "--gallery.images", "0", "--output", "report"],
    )
    return Case("weights file", damage, list(rng.choice(commands)))


def record(rng: random.Random) -> Case:
    name = rng.choice(("result.json", "epochs.csv", "config.yaml", "lr_find.json", "metrics.csv"))
    run = RUN if rng.random() < 0.4 else FINISHED
    path = Path(run, name)
    if name == "lr_find.json":
        path.write_text(json.dumps({"lr_max": 3e-3, "lr_min": 1e-4}))
    if not path.is_file() or rng.random() < 0.15:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        damage = "fifo"
    elif rng.random() < 0.45 or path.suffix == ".csv":
        damage = damage_bytes(str(path), rng)
    else:
        content = yaml.safe_load(path.read_text())
        damage = change(content, rng, tensors=False)
        path.write_text(yaml.safe_dump(content) if path.suffix == ".yaml" else json.dumps(content))
    commands = (
        ["report", "--ckpt_path", run, "--gallery.images", "0"],
        ["compare", run],
        ["export", "--ckpt_path", run],
        ["fit", "--ckpt_path", run, *QUICK],
        ["test", "--ckpt_path", run],
    )
    return Case("record", f"{name} {damage}", list(rng.choice(commands)))


def sweep(rng: random.Random) -> Case:
    path = Path("lightning_logs/sweep/version_0/lr_sweep.json")
    if rng.random() < 0.4:
        damage = damage_bytes(str(path), rng)
    else:
        content = json.loads(path.read_text())
        damage = change(content, rng, tensors=False)
        path.write_text(json.dumps(content))
    words = ["lr-sweep", *SMALL, "--points", "2", "--steps", "1", "--trainer.run_name", "sweep", "--resume"]
    return Case("LR sweep", damage, words)


LAUGHS = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
HOSTILE = {
    "alias bomb": LAUGHS,
    "alias bomb in an option": LAUGHS + "trainer: {max_epochs: *j}\n",
    "alias bomb in a text": "trainer: {max_epochs: '" + LAUGHS.replace("\n", ", ").join("{}")[:-3] + "}'}\n",
    "recursive anchor": "trainer: &x {callbacks: *x}\n",
    "recursive list": "trainer: {callbacks: &x [*x]}\n",
    "deep nesting": "trainer: " + "[" * 50_000,
    "deep mapping": "trainer: " + "{a: " * 5_000 + "1" + "}" * 5_000,
    "repeated key": "trainer: {max_epochs: 1}\ntrainer: {max_epochs: 2}\n",
    "a list": "trainer: [1]\n",
    "no mapping": "- 1\n",
    "large": "# " + "x" * 2_000_000 + "\n",
    "huge number": "trainer: {max_epochs: 1" + "0" * 10_000 + "}\n",
    "date": "trainer: {max_epochs: 2001-99-99}\n",
    "not a number": "model: {lr_max: .nan, lr_min: .inf}\n",
    "callback": "trainer: {callbacks: [{class_path: evil.Cb}]}\n",
    "callback by name": "trainer: {callbacks: evil.Cb}\n",
    "network": "model: {network: {class_path: evil.Net}}\n",
    "network by name": "model: {network: evil.Net}\n",
    "network within": "model: {network: {class_path: torch.nn.Linear, init_args: {a: {class_path: evil.Net}}}}\n",
    "function": "model: {network: {class_path: torch.hub.load, init_args: {repo_or_dir: ., source: local}}}\n",
    "command": "model: {network: {class_path: subprocess.Popen, init_args: {args: [touch, " + MARKER + "]}}}\n",
    "object in another command's flag": "start: {class_path: evil.Net}\n",
    "python tag": "trainer: !!python/object/apply:os.system ['touch " + MARKER + "']\n",
    "name outside": "trainer: {run_name: ../../outside}\n",
    "absolute name": "trainer: {run_name: /tmp/outside}\n",
    "name with zero": 'trainer: {run_name: "a\\0b"}\n',
    "logger": "trainer: {logger: {class_path: evil.Cb}}\n",
    "text": "trainer: '{callbacks: [{class_path: evil.Cb}]}'\n",
    "huge image": "data: {image_size: 100000}\n",
    "huge width": "model: {width: 1000000000}\n",
}


def recipe(rng: random.Random) -> Case:
    path = Path("recipe.yaml")
    if rng.random() < 0.7:
        damage, text = rng.choice(list(HOSTILE.items()))
        path.write_text(text)
    else:
        text = Path(RUN, "config.yaml").read_text()
        path.write_text(text)
        if rng.random() < 0.5:
            damage = damage_bytes(str(path), rng)
        else:
            content = yaml.safe_load(text)
            damage = change(content, rng, tensors=False)
            path.write_text(yaml.safe_dump(content))
    target = rng.choice(("recipe", "recipe", "run"))
    if target == "run":
        shutil.copy(path, f"{RUN}/config.yaml")
        return Case("config.yaml of a run", damage, list(rng.choice(READERS)))
    flags = ["--data.source", "digits"]
    command = rng.choice((["schedule"], ["fit", *QUICK, "--trainer.fast_dev_run", "1", "--data.batch_size", "100"]))
    return Case("recipe", damage, [*command, *flags, "--config", "recipe.yaml"])


def picture(rng: random.Random) -> Case:
    path = rng.choice(("images/test/cat/0.png", "images/test/cat/1.jpg"))
    name = rng.choice(("bytes", "bytes", "bytes", "eps", "fifo", "huge", "text", "device"))
    if name == "bytes":
        name = damage_bytes(path, rng)
    elif name == "eps":
        Path(path).write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(touch x) run\n")
    elif name == "huge":
        header = struct.pack(">IIBBBBB", 10**6, 10**6, 8, 2, 0, 0, 0)
        Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + bytes(100))
    elif name == "text":
        Path(path).write_text("hello")
    else:
        Path(path).unlink()
        os.mkfifo(path) if name == "fifo" else Path(path).symlink_to("/dev/zero")
    one = ["predict", "--ckpt_path", LAST, "--images", path]
    folder = ["predict", "--ckpt_path", LAST, "--images", "images"]
    train = ["fit", *QUICK, "--trainer.fast_dev_run", "1", "--data.source", "folder", "--data.root", "images"]
    return Case("image", name, rng.choice((one, folder, [*train, "--data.batch_size", "4", "--model.width", "4"])))


def archive(rng: random.Random) -> Case:
    name = rng.choice(("bytes", "bytes", "slip", "absolute", "zeros", "many", "link", "nested", "repeated", "fifo"))
    path = "images.zip"
    if name == "bytes":
        name = damage_bytes(path, rng)
    elif name == "fifo":
        Path(path).unlink()
        os.mkfifo(path)
    else:
        with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as content:
            image = Path("images/test/cat/0.png").read_bytes()
            if name in ("slip", "absolute"):
                content.writestr("../" * 4 + "slipped.png" if name == "slip" else "/slipped.png", image)
            elif name == "zeros":
                content.writestr("images/train/cat/zeros.png", bytes(4 * 10**8))
            elif name == "many":
                for number in range(20_000):
                    content.writestr(f"other/{number}", b"")
            elif name == "link":
                link = zipfile.ZipInfo("images/train/cat/link.png")
                link.external_attr = 0o120777 << 16
                content.writestr(link, rng.choice(("link.png", "/etc/passwd", "../" * 9, b"\xff\xfe")))
            elif name == "nested":
                content.writestr("images/train/" + "a/" * 3000 + "x.png", image)
            else:
                content.writestr("images/train/cat/0.png", image)
    words = ["fit", *QUICK, "--trainer.fast_dev_run", "1", "--data.source", "folder", "--data.root", path]
    return Case("archive", name, [*words, "--data.batch_size", "4", "--model.width", "4"])


MAKERS = (checkpoint_bytes, checkpoint_content, checkpoint_hostile, weights, record, sweep, recipe, picture, archive)
WEIGHTED = (2, 4, 1, 2, 3, 1, 4, 2, 2)


# --------------------------------------------------------------------------------------------------------- running


def run_case(base: Path, folder: Path, seed: str, trusted: Trusted) -> Outcome:
    """Make and run one case in a new process."""
    shutil.copytree(base, folder)
    before = {path.name for path in folder.parent.parent.iterdir()}
    rng = random.Random(seed)
    with contextlib.chdir(folder):
        case = rng.choices(MAKERS, WEIGHTED)[0](rng)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        os._exit(_child(folder, case, trusted))
    status = None
    while time.monotonic() - start < CLOCK:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        *_, usage = os.wait4(child, 0)
        status = None
    error = (folder / "stderr.txt").read_text(errors="replace")
    lines = [line for line in error.splitlines() if line.startswith("error:")]
    code = 0 if status is None else os.waitstatus_to_exitcode(status)
    stray = {path.name for place in folder.parents[:2] for path in place.iterdir()} - before - {folder.name}
    if status is None or code == -signal.SIGXCPU:
        result = "hang"
    elif list(folder.rglob(MARKER)):
        result = "payload"
    elif code < 0:
        result = "crash"
    elif "Traceback (most recent call last)" in error:
        result = "traceback"
    elif code == 99:
        result = "wrong tensors"
    elif stray:
        result = f"stray file {stray}"
    elif code == 0:
        result = "right"
    elif len(lines) == 1 and code in (1, 2):
        result = "unnamed" if UNNAMED.match(lines[0]) else "message"
    else:
        result = f"code {code}"
    said = error[-1500:] if result not in ("right", "message") else "".join(lines)[:300]
    shutil.rmtree(folder)
    return Outcome(case.kind, case.damage, case.words, result, round(usage.ru_utime + usage.ru_stime, 2), code, said)


def _child(folder: Path, case: Case, trusted: Trusted) -> int:
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for stream, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
    sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    try:
        main(case.words)
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    if code == 0 and case.kind in ("checkpoint, bytes", "weights file") and case.damage in BYTES:
        code = 0 if _intact(case.words, trusted) else 99
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _intact(words: list[str], trusted: Trusted) -> bool:
    """Whether a file that was accepted has one of the original weights; ``fit`` has replaced them."""
    if words[0] == "fit":
        return True
    try:
        state = read_checkpoint(Path(WEIGHTS if WEIGHTS in words else LAST))["state_dict"]
    except UserError:  # not read by this command
        return True
    return any(all(torch.equal(state[name], tensor) for name, tensor in one.items()) for one in trusted.values())


def work(job: tuple[Path, int, list[int]]) -> list[Outcome]:
    """Run some of the cases, one after the other."""
    base, seed, numbers = job
    torch.set_num_threads(1)
    files = [base / LAST, base / FINISHED / "checkpoints/last.ckpt"]
    files += [
        path for folder in (RUN, FINISHED) if (path := base / folder / "checkpoints/last.previous.ckpt").is_file()
    ]
    trusted = {str(path): read_checkpoint(path)["state_dict"] for path in files}
    return [run_case(base, base.parent / f"case_{number}" / "files", f"{seed}/{number}", trusted) for number in numbers]


def run_cases(seed: int, count: int, workers: int) -> list[Outcome]:
    """Run all cases in ``workers`` processes, which have imported everything that a command needs."""
    for name in COMMANDS:
        command_function(name)
    import albumentations  # noqa: F401  # takes seconds

    import customresnet.cli.lightning  # noqa: F401

    with tempfile.TemporaryDirectory() as top:
        base = Path(top) / "base"
        base.mkdir()
        prepare(base)
        for number in range(count):
            (Path(top) / f"case_{number}").mkdir()
        jobs = [(base, seed, list(range(part, count, workers))) for part in range(workers)]
        with get_context("fork").Pool(workers) as pool:
            return [outcome for part in pool.map(work, jobs) for outcome in part]


def table(outcomes: list[Outcome]) -> str:
    """The number of cases by kind and result, as Markdown."""
    results = list(dict.fromkeys(["right", "message", *(outcome.result for outcome in outcomes)]))
    lines = [f"| damaged file | cases | {' | '.join(results)} |", "|---|---:|" + "---:|" * len(results)]
    for kind in [*sorted({outcome.kind for outcome in outcomes}), "all"]:
        chosen = [outcome for outcome in outcomes if kind in (outcome.kind, "all")]
        counts = Counter(outcome.result for outcome in chosen)
        lines.append(f"| {kind} | {len(chosen)} | {' | '.join(str(counts[result]) for result in results)} |")
    return "\n".join(lines)


def run() -> None:
    """Run the cases, print the table, and show every case that ended badly."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--output", type=Path, help="file for all outcomes, as JSON lines")
    args = parser.parse_args()
    outcomes = run_cases(args.seed, args.count, args.workers)
    if args.output:
        args.output.write_text("".join(json.dumps(asdict(outcome)) + "\n" for outcome in outcomes))
    for outcome in outcomes:
        if outcome.result not in ("right", "message"):
            print(f"{outcome.result}: {outcome.kind}, {outcome.damage}: {' '.join(outcome.words)}\n{outcome.said}\n")
    print(table(outcomes))
    print(f"longest: {max(outcome.seconds for outcome in outcomes)} s of processor time")
    sys.exit(any(outcome.result not in ("right", "message") for outcome in outcomes))


if __name__ == "__main__":
    run()
