"""The precision that `auto` takes, on hardware that this machine is made to look like."""

import pytest
import torch

from customresnet.runtime import precision
from customresnet.runtime.precision import device_kind, resolve_precision


@pytest.fixture
def machine(monkeypatch):
    def look_like(
        *, cuda=False, capability=(8, 0), bf16=False, mps=False, avx512_bf16=False, amx=False, held_to_avx2=False
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        # emulated bf16 is there on any recent GPU, and slow: it must not be asked for
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bf16
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: not held_to_avx2, raising=False)

    return look_like


@pytest.mark.parametrize(
    ("hardware", "accelerator", "expected"),
    [
        ({"cuda": True, "bf16": True}, "auto", "bf16-mixed"),
        ({"cuda": True, "capability": (7, 5)}, "auto", "16-mixed"),
        ({"cuda": True, "capability": (7, 0)}, "gpu", "16-mixed"),
        ({"cuda": True, "capability": (6, 1)}, "auto", "32-true"),
        ({"cuda": True, "bf16": True}, "cpu", "32-true"),
        ({"mps": True}, "auto", "32-true"),
        ({"avx512_bf16": True}, "auto", "bf16-mixed"),
        ({"amx": True}, "cpu", "bf16-mixed"),
        ({"avx512_bf16": True, "held_to_avx2": True}, "auto", "32-true"),
        ({}, "auto", "32-true"),
    ],
)
def test_auto_takes_what_the_hardware_is_fast_at(machine, hardware, accelerator, expected):
    machine(**hardware)
    chosen, reason = resolve_precision("auto", accelerator)
    assert chosen == expected
    assert reason
    if not (hardware.get("cuda") or hardware.get("mps") or expected == "bf16-mixed"):
        assert reason == "oneDNN has no AVX512-BF16 or AMX here"


def test_bf16_by_hand_on_a_cpu_without_it_is_done_with_a_warning(machine):
    machine()
    chosen, reason = resolve_precision("bf16-mixed", "cpu")
    assert chosen == "bf16-mixed"
    assert "warning" in reason
    assert "--trainer.precision 32-true" in reason


def test_a_precision_by_hand_is_taken(machine):
    machine(cuda=True, bf16=True)
    assert resolve_precision("32-true", "gpu") == ("32-true", "as asked")


def test_an_old_torch_without_the_checks_counts_as_without_bf16(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert precision.cpu_has_bf16() is False


def test_a_device_named_by_hand_is_that_device(machine):
    machine()
    assert [device_kind(name) for name in ("auto", "cpu", "gpu", "mps")] == ["cpu", "cpu", "cpu", "mps"]
