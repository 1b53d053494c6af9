"""Choose the numeric precision that the hardware is fast at."""

import torch

BF16_CPU_FLAGS = "AVX512-BF16 or AMX"


def device_kind(accelerator: str) -> str:
    """``cuda``, ``mps`` or ``cpu``: what Lightning's ``--trainer.accelerator`` comes down to on this machine."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return accelerator if accelerator in ("cuda", "mps") else "cpu"


def cpu_has_bf16() -> bool:
    """Whether oneDNN has bf16 convolutions here, and ONEDNN_MAX_CPU_ISA does not hold it to AVX2."""
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    if not any(check() for check in checks if check):
        return False
    # true on any AVX-512, so not enough alone
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def resolve_precision(precision: str, accelerator: str) -> tuple[str, str]:
    """Turn ``auto`` into one of Lightning's precisions.

    Returns:
        The precision, and the reason (or the warning) to show.
    """
    kind = device_kind(accelerator)
    if precision != "auto":
        if kind == "cpu" and precision in ("16-mixed", "16"):
            precision = "bf16-mixed"  # what Lightning makes of it, too
        if kind == "cpu" and "bf16" in precision and not cpu_has_bf16():
            return precision, (
                f"as asked; warning: oneDNN has no {BF16_CPU_FLAGS} here, so bf16 convolutions run many times slower "
                "than --trainer.precision 32-true"
            )
        return precision, "as asked"
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
    """The reduced type that ``auto`` computes in on ``cuda``, ``mps`` or ``cpu``; None where it stays with float32."""
    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(resolve_precision("auto", kind)[0])
