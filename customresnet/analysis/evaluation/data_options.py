"""Where a run's test images are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from customresnet.data.sources import SourceName
from customresnet.data.transforms.preprocessing import Preprocessing


@dataclass(frozen=True)
class DataOptions:
    """The test images.

    Args:
        source: Where they come from. Default: the run's source.
        root: Their folder or .zip. Default: the run's.
    """

    source: SourceName | None = None
    root: Path | None = None

    def locate(self, prep: Preprocessing, config: dict[str, Any]) -> tuple[SourceName, Path | None]:
        """Source and root of a run's test images. ``config`` is the run's config.yaml, or empty."""
        source: Any = self.source or prep.source
        if self.root or "data" not in config or source != prep.source:
            return source, self.root
        root = config["data"]["root"]
        return source, Path(root) if root else None
