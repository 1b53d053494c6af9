"""The images that a run was tested on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customresnet.data.sources import SourceName
from customresnet.data.transforms.preprocessing import Preprocessing


@dataclass(frozen=True)
class DataOptions:
    """Where the test images are.

    Args:
        source: The source. Default: the run's.
        root: Its folder or .zip. Default: the run's.
    """

    source: SourceName | None = None
    root: Path | None = None

    def place(self, prep: Preprocessing, config: dict[str, Any] | None) -> tuple[SourceName, Path | None]:
        """Source and root of the images: those given, else the run's.

        Args:
            prep: What the run's checkpoint knows of its images.
            config: The run's config.yaml; None if there is none.
        """
        source: Any = self.source or prep.source
        if self.root or not config or source != prep.source:
            return source, self.root
        root = config["data"]["root"]
        return source, Path(root) if root else None
