"""Choose a numeric precision at which the hardware is fast."""

import torch

from customresnet.runtime.hardware import device_kind

BF16_CPU_FLAGS = "AVX512-BF16 or AMX"


def cpu_has_bf16() -> bool:
    """Whether oneDNN has fast bf16 convolutions here; not if ONEDNN_MAX_CPU_ISA restricts it to AVX2."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if not any(check() for check in checks if check):
        return False
    # true on any AVX-512 CPU, so not sufficient alone
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def resolve_precision(precision: str, accelerator: str) -> tuple[str, str]:
    """Turn ``auto`` into one of Lightning's precisions.

    Returns:
        The precision, and the reason or warning to show.
    """
    kind = device_kind(accelerator)
    if precision != "auto":
        if kind == "cpu" and precision in ("16-mixed", "16"):
            precision = "bf16-mixed"  # Lightning does the same
        if kind == "cpu" and "bf16" in precision and not cpu_has_bf16():
            return precision, (
                f"as given; warning: oneDNN has no {BF16_CPU_FLAGS} here, so bf16 convolutions run many times slower "
                "than `precision` 32-true"
            )
        return precision, "as given"
    if kind == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16-mixed", "the GPU has bf16"
        if torch.cuda.get_device_capability() >= (7, 0):
            return "16-mixed", "the GPU has fp16 tensor cores but no bf16"
        return "32-true", "the GPU has no tensor cores"
    if kind == "mps":
        return "32-true", "Apple's MPS"
    if cpu_has_bf16():
        return "bf16-mixed", f"the CPU has {BF16_CPU_FLAGS}"
    return "32-true", f"oneDNN has no {BF16_CPU_FLAGS} here"


def autocast_type(kind: str) -> torch.dtype | None:
    """The reduced type that ``auto`` uses on ``cuda``, ``mps`` or ``cpu``; None for float32."""
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(resolve_precision("auto", kind)[0])
