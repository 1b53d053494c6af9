"""A network from another package, torchvision's ShuffleNet: trained, resumed, evaluated, reported on and compared."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torchvision.models import ShuffleNetV2

import customresnet
from customresnet import CIFAR10DataModule, ImageClassifier, Trainer
from customresnet.cli import main as cli
from customresnet.commands.lr_find import lr_find
from customresnet.commands.lr_sweep import lr_sweep
from customresnet.runtime.errors import UserError
from tests.conftest import BOUNDS, one_line, read_json

SHUFFLENET = "torchvision.models.shufflenet_v2_x0_5"
CLASS = "torchvision.models.ShuffleNetV2"
TINY = {"stages_repeats": [1, 1, 1], "stages_out_channels": [8, 16, 24, 32, 40]}
"""Arguments of a very small ShuffleNetV2."""
DIGITS = ["--data.source", "digits", "--data.train_size", "300", "--data.batch_size", "64"]
WORDS = ["fit", *DIGITS, *BOUNDS, "--trainer.max_epochs", "2", "--model.network", SHUFFLENET]


@pytest.fixture(scope="module")
def own_run(tmp_path_factory) -> Path:
    """The folder of a finished run of the ShuffleNet."""
    root = tmp_path_factory.mktemp("own_run")
    cli.main([*WORDS, "--report", "false", "--trainer.default_root_dir", str(root)])
    return root / "lightning_logs/customresnet/version_0"


def last_checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)


def test_its_checkpoint_says_how_to_build_it(own_run):
    options = last_checkpoint(own_run)["hyper_parameters"]
    assert options["network"] == {"class_path": SHUFFLENET, "init_args": {}}
    assert (options["num_classes"], options["width"], options["dropout"]) == (10, None, 0.0)
    loaded = ImageClassifier.load_from_checkpoint(own_run / "checkpoints/last.ckpt", weights_only=True)
    assert isinstance(loaded.net, ShuffleNetV2)
    assert loaded.net.fc.out_features == 10
    assert read_json(own_run / "result.json")["parameters"] == sum(p.numel() for p in loaded.net.parameters())


def test_interrupted_and_resumed_it_ends_in_the_same_weights(run, own_run):
    stopped = run(*WORDS, "--trainer.callbacks", "tests.conftest.StopAfterOneEpoch")
    assert stopped.code == 1
    folder = Path("lightning_logs/customresnet/version_0")
    assert last_checkpoint(folder)["epoch"] == 0
    resumed = run("fit", "--ckpt_path", "last", "--trainer.callbacks", "[]")
    assert resumed.code == 0, resumed.err
    whole, state = (last_checkpoint(path)["state_dict"] for path in (own_run, folder))
    assert [name for name in whole if not torch.equal(whole[name], state[name])] == []
    assert (folder / "epochs.csv").read_text() == (own_run / "epochs.csv").read_text()


def test_the_evaluation_reproduces_the_runs_own(run, own_run):
    outcome = run("test", "--ckpt_path", str(own_run))
    assert outcome.code == 0, outcome.err
    assert f"{read_json(own_run / 'result.json')['test/correct']}/360" in outcome.out
    alone = run("test", "--ckpt_path", str(own_run / "checkpoints/last.ckpt"), "--model.network", SHUFFLENET)
    assert alone.code == 0, alone.err
    other = run("test", "--ckpt_path", str(own_run), "--model.network", "custom_resnet")
    one_line(other, "--model.network: received custom_resnet, but the checkpoint was trained with", SHUFFLENET)


def test_its_report_has_grad_cam_and_its_layers(run, own_run):
    outcome = run("report", "--ckpt_path", str(own_run), "--output", "report")
    assert outcome.code == 0, outcome.err
    page = Path("report/index.html").read_text(encoding="utf-8")
    assert "Grad-CAM" in page
    assert "ShuffleNetV2" in page
    assert Path("report/gradcam_wrong.png").read_bytes().startswith(b"\x89PNG")
    parameters = read_json(own_run / "result.json")["parameters"]
    assert f"{parameters:,}" in page


def test_it_is_compared_with_a_custom_resnet(run, own_run, small_run):
    outcome = run("compare", str(own_run), str(small_run), "--output", "compared")
    assert outcome.code == 0, outcome.err
    page = Path("compared/index.html").read_text(encoding="utf-8").replace("<wbr>", "")  # where names may wrap
    assert "shufflenet_v2_x0_5" in page
    assert "custom_resnet, width 8" in page


def test_init_args_are_given_one_by_one(run):
    flags = [word for name, value in TINY.items() for word in (f"--model.network.init_args.{name}", str(value))]
    outcome = run("fit", *DIGITS, *BOUNDS, "--trainer.max_epochs", "1", "--model.network", CLASS, *flags)
    assert outcome.code == 0, outcome.err
    folder = Path("lightning_logs/customresnet/version_0")
    assert last_checkpoint(folder)["hyper_parameters"]["network"] == {"class_path": CLASS, "init_args": TINY}
    assert run("test", "--ckpt_path", str(folder)).code == 0
    assert run("fit", "--config", str(folder / "config.yaml"), "--trainer.fast_dev_run", "1").code == 0
    Path("own.yaml").write_text(f"model: {{network: {{class_path: {CLASS}, init_args: {TINY}}}}}")
    assert run("fit", "--config", "own.yaml", *DIGITS, "--trainer.fast_dev_run", "1").code == 0


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["nope"], ["--model.network must be one of custom_resnet", "import path of an nn.Module", "received nope"]),
        (["nope.Net"], ["--model.network nope.Net cannot be imported (No module named 'nope')", "Python path"]),
        (["torchvision.models.nope"], ["--model.network torchvision.models.nope cannot be imported", "'nope'"]),
        (["custom_resnet", "--model.network.init_args.x", "3"], ["--model.network custom_resnet takes --model.width"]),
        (["collections.Counter"], ["--model.network collections.Counter returns a Counter, not an nn.Module"]),
        (["math.pi"], ["--model.network math.pi is not a class"]),
        (
            [SHUFFLENET, "--model.network.init_args.num_classes", "7"],
            ["--model.network ShuffleNetV2 must return logits (2, 10) for 2 images; received (2, 7)"],
        ),
        (
            [SHUFFLENET, "--model.network.init_args.nope", "7"],
            [
                f"--model.network {SHUFFLENET} cannot be built with init_args",
                "'nope': 7",
                "unexpected keyword argument",
            ],
        ),
        (["torch.nn.Linear"], ["--model.network torch.nn.Linear cannot be built", "in_features"]),
        ([SHUFFLENET, "--model.width", "8"], ["--model.width is an option of custom_resnet", "received 8", SHUFFLENET]),
        ([SHUFFLENET, "--model.dropout", "0.1"], ["--model.dropout is an option of custom_resnet", "received 0.1"]),
    ],
)
def test_a_network_that_cannot_be_used_is_refused(run, flags, parts):
    one_line(run("fit", *DIGITS, *BOUNDS, "--model.network", *flags), *parts)
    assert not Path("lightning_logs").exists()


# ------------------------------------------------------------------------------------------------------- from Python


def fit(network, root: Path) -> dict:
    """The checkpoint of one epoch of a network."""
    data = CIFAR10DataModule(source="digits", train_size=200, batch_size=64, seed=0)
    model = ImageClassifier(network, lr_max=3e-3, lr_min=1e-4)
    trainer = Trainer(max_epochs=1, logger=False, enable_progress_bar=False, default_root_dir=str(root))
    customresnet.fit(model, data, trainer)
    return torch.load(root / "checkpoints/last.ckpt", weights_only=True)


def test_an_instance_and_a_class_path_train_alike(tmp_path):
    torch.manual_seed(0)
    instance = fit(ShuffleNetV2(**TINY, num_classes=10), tmp_path / "instance")
    torch.manual_seed(0)
    built = fit({"class_path": CLASS, "init_args": TINY}, tmp_path / "built")
    assert built["hyper_parameters"]["network"] == {"class_path": CLASS, "init_args": TINY}
    assert instance["hyper_parameters"]["network"]["class_path"].endswith(".ShuffleNetV2")
    assert instance["state_dict"].keys() == built["state_dict"].keys()
    weights = [name for name in built["state_dict"] if name.startswith("net.")]
    assert weights
    assert all(torch.equal(instance["state_dict"][name], built["state_dict"][name]) for name in weights)


def test_an_instance_is_refused_where_new_networks_are_built(tmp_path):
    data = CIFAR10DataModule(source="digits", batch_size=64, seed=0)
    trainer = Trainer(enable_progress_bar=False, default_root_dir=str(tmp_path))
    model = ImageClassifier(ShuffleNetV2(**TINY, num_classes=10))
    for command in (partial(lr_sweep, points=2, steps=1), partial(lr_find, repeat=2)):
        with pytest.raises(UserError, match=r"^`network` was given as an instance.*class_path and init_args$"):
            command(model, data, trainer)
    assert list(tmp_path.iterdir()) == []
