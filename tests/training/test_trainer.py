"""The Trainer's defaults."""

import pytest
import torch

from customresnet import Trainer


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("cuda", {}, True),
        ("cuda", {"benchmark": False}, False),
        ("cuda", {"deterministic": True}, False),
        ("cpu", {}, False),
    ],
)
def test_cudnn_benchmark_is_on_for_gpus_unless_set(tmp_path, monkeypatch, kind, options, expected):
    monkeypatch.setattr("customresnet.training.trainer.device_kind", lambda accelerator: kind)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    try:
        Trainer(accelerator="cpu", precision="32-true", logger=False, default_root_dir=str(tmp_path), **options)
        assert torch.backends.cudnn.benchmark is expected
    finally:
        torch.use_deterministic_algorithms(False)
