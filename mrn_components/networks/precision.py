"""Which number formats pay on the hardware at hand; asked when used, never at import."""

from typing import Any

import torch

PRECISIONS = ("fp32", "bf16", "auto")


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Compute in bfloat16 on ``device`` if ``precision`` is "bf16", or "auto" and it pays.

    Apple's GPUs (MPS) compute in float32 whatever it is: their autocast lacks operations.
    """
    enabled = precision == "bf16" or (precision == "auto" and bf16_pays(device))
    enabled = enabled and device.type != "mps"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def choose_device(*, name: str = "auto") -> torch.device:
    """Return the device that a config names, or the best of this machine.

    Args:
        name: "auto" takes a GPU of CUDA, else one of Apple (MPS), else the CPU; or one of torch's
            names, such as "cuda:1".
    """
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def bf16_pays(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return any(_cpu().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return False


def fast_fp32_matmul(tolerance: float = 1e-5) -> bool:
    """Let oneDNN multiply float32 matrices on the CPU if it keeps float32 accuracy here.

    On AMD CPUs this nearly halves the time of MRN; on Intel's, whose MKL is the default, it costs a
    tenth, so there nothing changes. The switch that routes the product to oneDNN also allows it to
    round to bfloat16, which CPUs with bfloat16 units do and others do not; so a product of two
    small matrices is measured first.

    Args:
        tolerance: largest relative error of the product (root mean square) to accept.

    Returns:
        Whether oneDNN is now used.
    """
    if "Intel" in _cpu().get("cpu_name", ""):
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 256, 256, generator=generator)
    exact = a.double() @ b.double()
    onednn: Any = torch.backends.mkldnn
    before = onednn.matmul.fp32_precision
    onednn.matmul.fp32_precision = "bf16"
    error = float((a @ b - exact).norm() / exact.norm())
    if error > tolerance:
        onednn.matmul.fp32_precision = before
    return error <= tolerance


def _cpu() -> dict[str, Any]:
    """What the CPU is and can; empty where torch is too old to say."""
    return getattr(torch.cpu, "get_capabilities", dict)()
