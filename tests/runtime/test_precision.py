"""The precision that `auto` chooses, on simulated hardware."""

import pytest
import torch

from customresnet.runtime.hardware import device_kind
from customresnet.runtime.precision import cpu_has_bf16, resolve_precision


@pytest.fixture
def hardware(monkeypatch):
    """A function that makes torch report this hardware."""

    def simulate(
        *, cuda=False, capability=(8, 0), bf16=False, mps=False, avx512_bf16=False, amx=False, limited_to_avx2=False
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
        # any recent GPU emulates bf16, slowly: that must not count
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bf16
        )
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: not limited_to_avx2, raising=False)

    return simulate


@pytest.mark.parametrize(
    ("features", "accelerator", "expected"),
    [
        ({"cuda": True, "bf16": True}, "auto", "bf16-mixed"),
        ({"cuda": True, "capability": (7, 5)}, "auto", "16-mixed"),
        ({"cuda": True, "capability": (7, 0)}, "gpu", "16-mixed"),
        ({"cuda": True, "capability": (6, 1)}, "auto", "32-true"),
        ({"cuda": True, "bf16": True}, "cpu", "32-true"),
        ({"mps": True}, "auto", "32-true"),
        ({"avx512_bf16": True}, "auto", "bf16-mixed"),
        ({"amx": True}, "cpu", "bf16-mixed"),
        ({"avx512_bf16": True, "limited_to_avx2": True}, "auto", "32-true"),
        ({}, "auto", "32-true"),
    ],
)
def test_auto_chooses_what_the_hardware_computes_fast_in(hardware, features, accelerator, expected):
    hardware(**features)
    chosen, reason = resolve_precision("auto", accelerator)
    assert chosen == expected
    assert reason
    if not (features.get("cuda") or features.get("mps") or expected == "bf16-mixed"):
        assert reason == "oneDNN has no AVX512-BF16 or AMX here"


def test_bf16_on_a_cpu_without_it_is_used_with_a_warning(hardware):
    hardware()
    chosen, reason = resolve_precision("bf16-mixed", "cpu")
    assert chosen == "bf16-mixed"
    assert "warning" in reason
    assert "`precision` 32-true" in reason


def test_a_given_precision_is_used(hardware):
    hardware(cuda=True, bf16=True)
    assert resolve_precision("32-true", "gpu") == ("32-true", "as given")


def test_a_torch_without_the_checks_counts_as_without_bf16(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert cpu_has_bf16() is False


def test_accelerators_map_to_devices(hardware):
    hardware()
    assert [device_kind(name) for name in ("auto", "cpu", "gpu", "mps")] == ["cpu", "cpu", "cpu", "mps"]
