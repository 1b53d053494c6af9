"""Several processes: the same run as one, LR range test included, on one machine and on several."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from customresnet import CIFAR10DataModule, ImageClassifier
from customresnet.data.batches import batch_size_per_process
from customresnet.runtime.errors import UserError
from tests.conftest import BOUNDS, SMALL, one_line, read_json

ROOT = Path(__file__).parents[2]
RUN = Path("lightning_logs/demo/version_0")
TWO = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "customresnet", "fit", *words, "--report", "false"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=environment, **options)


@pytest.mark.parametrize(
    ("size", "processes", "fitting"), [(130, 4, "128 or 132"), (3, 4, "4"), (7, 2, "6 or 8"), (513, 2, "512 or 514")]
)
def test_a_batch_that_cannot_be_divided_is_refused_with_sizes_that_can(size, processes, fitting):
    with pytest.raises(UserError, match=f"`batch_size` {size} cannot be divided among {processes} .*; use {fitting}$"):
        batch_size_per_process(size, processes)
    for other in fitting.split(" or "):
        assert batch_size_per_process(int(other), processes) * processes == int(other)


def test_the_command_line_refuses_it_before_any_process_starts(run):
    one_line(run("fit", *SMALL, *BOUNDS, *TWO, "--data.batch_size", "129"), "--data.batch_size 129", "128 or 130")


SCRIPT = """
import torch, customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
import pytorch_lightning as pl

class Losses(pl.Callback):
    losses = []
    def on_train_batch_end(self, trainer, model, outputs, batch, batch_idx):
        self.losses.append(float(trainer.strategy.reduce(outputs["loss"], reduce_op="mean")))

torch.manual_seed(0)
data = CIFAR10DataModule(source="digits", batch_size=128, train_size=1280, seed=0, engine="batch")
model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4, momentum=None)
losses = Losses()
options = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "precision": "32-true", "enable_progress_bar": False}
trainer = Trainer(max_epochs=2, callbacks=[losses], **options)
customresnet.fit(model, data, trainer, report=False)
if trainer.is_global_zero:
    torch.save({"losses": losses.losses, "weights": model.net.state_dict()}, "ddp.pt")
"""


@pytest.mark.slow
def test_two_processes_equal_one_that_accumulates_over_their_shares(tmp_path):
    """20 steps in float32, against a plain loop: each half of a batch normalized by itself, gradients averaged."""
    (tmp_path / "fit.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "fit.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.load(tmp_path / "ddp.pt", weights_only=True)

    torch.manual_seed(0)
    data = CIFAR10DataModule(source="digits", batch_size=128, train_size=1280, seed=0, engine="batch")
    model = ImageClassifier(width=4, lr_max=3e-3, lr_min=1e-4, momentum=None)
    data.setup("fit")
    loader, optimizer = data.train_dataloader(), model.new_optimizer(fused=True)
    scheduler = model.policy().scheduler(optimizer, 20, 10)
    losses = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)
        for images, labels in loader:
            optimizer.zero_grad()
            shares = []
            for rank in range(2):
                loss = F.cross_entropy(model(images[rank::2]), labels[rank::2])
                (loss / 2).backward()
                shares.append(float(loss))
            optimizer.step()
            scheduler.step()
            losses.append(sum(shares) / 2)
    assert found["losses"] == pytest.approx(losses, abs=1e-4)
    for name, parameter in model.net.named_parameters():
        torch.testing.assert_close(found["weights"][name], parameter.data, atol=1e-4, rtol=0)


@pytest.mark.slow
def test_two_machines_find_the_same_bounds_and_train_to_the_end(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [*SMALL, "--lr_find.steps", "20", *TWO[:2], "--trainer.strategy", "ddp", "--trainer.num_nodes", "2"]
    base = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    base |= {"TORCHELASTIC_RUN_ID": "test", "LOCAL_WORLD_SIZE": "1"}  # what torchrun sets
    machines = [start(tmp_path, *words, RANK=str(r), GROUP_RANK=str(r), **base) for r in range(2)]
    outputs = [machine.communicate(timeout=120)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    assert "LR range test" in outputs[0]
    assert "LR range test" not in outputs[1]
    result = read_json(tmp_path / RUN / "result.json")
    # two epochs of 1,437 images, 128 a step, 64 from each process
    assert (result["ended"], result["steps"], result["test/images"]) == ("completed", 24, 360)
    assert f"{result['test/correct']}/360" in outputs[0]
    assert [path.name for path in (tmp_path / RUN).parent.iterdir()] == ["version_0"]
    assert result["lr_max"] == read_json(tmp_path / RUN / "lr_find.json")["lr_max"]


KILL = """
import os
import pytorch_lightning as pl

class KillRankOne(pl.Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_rank == 1 and trainer.global_step == 15:
            os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_killed_process_ends_the_job_which_resumes_with_one_process(tmp_path):
    (tmp_path / "kill.py").write_text(KILL)
    killed = start(tmp_path, *SMALL, *BOUNDS, *TWO, "--trainer.callbacks", "kill.KillRankOne", PYTHONPATH=f"{ROOT}:.")
    begun = time.monotonic()
    output = killed.communicate(timeout=120)[0]
    assert killed.returncode != 0
    assert time.monotonic() - begun < 60
    assert "the process of rank 1 ended with signal 9" in output
    again = start(
        tmp_path,
        "--config",
        "demo",
        "--ckpt_path",
        "last",
        *TWO[:2],
        "--trainer.devices",
        "1",
        "--trainer.strategy",
        "auto",
        "--trainer.callbacks",
        "[]",
    )
    output = again.communicate(timeout=120)[0]
    assert again.returncode == 0, output
    result = read_json(tmp_path / RUN / "result.json")
    assert (result["ended"], result["steps"], result["epochs"]) == ("completed", 24, 2)
