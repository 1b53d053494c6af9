"""summary: print the layers of a network."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from customresnet.analysis.network.architecture import architecture, summary_text
from customresnet.analysis.network.layers import profile
from customresnet.data.transforms.preprocessing import Preprocessing
from customresnet.models import NetworkSpec, build_network
from customresnet.runs.checkpoint import load_network, read_checkpoint
from customresnet.runs.folders import find_checkpoint
from customresnet.runtime import files
from customresnet.runtime.errors import UserError


@dataclass(frozen=True)
class NetworkOptions:
    """The network.

    Args:
        network: Name of one of the package's networks, or the import path of an nn.Module class.
        width: Channels of the first convolution. Default: the network's own.
        dropout: Dropout probability; 0 is off.
        num_classes: Number of classes.
    """

    network: NetworkSpec = "custom_resnet"
    width: int | None = None
    dropout: float = 0.0
    num_classes: int = 10


def summary(
    model: NetworkOptions = NetworkOptions(),
    image_size: int | None = None,
    output: Path | None = None,
    ckpt_path: str | None = None,
) -> None:
    """Print a network's layers: output shapes, parameters, FLOPs and receptive fields.

    Args:
        model: The network.
        image_size: Side of the images in pixels. Default: the checkpoint's, else 32.
        output: Folder to write summary.json and architecture.png to. Default: none.
        ckpt_path: Show the network of last or best (of the newest run), pretrained, a checkpoint, or a run's folder.
    """
    if image_size is not None and image_size < 32:
        raise UserError(f"`image_size` must be at least 32; received {image_size}")
    if ckpt_path:
        given = [name for name, value in asdict(model).items() if value != getattr(NetworkOptions(), name)]
        if given:
            raise UserError(f"`ckpt_path` {ckpt_path} contains the network; leave out `{given[0]}`")
        checkpoint = read_checkpoint(find_checkpoint(ckpt_path, Path(".")))
        network = load_network(checkpoint)
        image_size = image_size or Preprocessing.from_checkpoint(checkpoint).image_size
    else:
        network, image_size = build_network(**asdict(model)), image_size or 32
    found = profile(network, image_size)
    print(summary_text(found))
    if output is None:
        return
    section = architecture(found)
    files.make_folder(output, "`output`")
    files.write_atomically(output / "summary.json", json.dumps(section.numbers, indent=1))
    section.figure.savefig(output / "architecture.png", dpi=150, facecolor="white")
    print(f"written: {files.shown(output.resolve() / 'summary.json')} and architecture.png")
