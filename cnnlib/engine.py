"""What makes a training step fast: precision and memory format. `train.fit` stays readable."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache

import torch

GAIN_WORTH_HAVING = (
    1.5  # bfloat16 has to beat float32 by this factor, or rounding costs more than it buys
)


@dataclass(frozen=True)
class Engine:
    """How a step runs on one device.

    Args:
        device: Where the network and its batches live.
        dtype: Type of the products inside convolutions and linear layers. Weights stay float32.
        memory_format: Order of an image batch in memory: channels last suits bfloat16 kernels.
    """

    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format

    @property
    def precision(self):
        """The short name of the precision: "fp32" or "bf16"."""
        return "bf16" if self.dtype is torch.bfloat16 else "fp32"

    def place(self, net):
        """Move a network, in place, to the device and the memory format."""
        return net.to(self.device, memory_format=self.memory_format)

    def place_images(self, images):
        """Give a batch of images the memory format."""
        return images.contiguous(memory_format=self.memory_format)

    def autocast(self):
        """Return the context in which a forward pass uses the precision."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def engine(device, precision="auto"):
    """Choose precision and memory format for a device.

    Args:
        device: A torch device or its name.
        precision: "fp32", "bf16", or "auto": bf16 where this machine gains from it, else fp32.

    Raises:
        ValueError: The precision is not one of the three.
    """
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(
            f"precision={precision!r} must be 'auto', 'bf16' or 'fp32': try precision='auto'"
        )
    device = torch.device(device)
    if precision == "auto":
        precision = "bf16" if bf16_pays(device.type) else "fp32"
    if precision == "bf16":
        return Engine(device, torch.bfloat16, torch.channels_last)
    return Engine(device, torch.float32, torch.contiguous_format)


@cache
def bf16_pays(device_type):
    """Say whether bfloat16 products are much faster than float32 ones on this machine.

    A CUDA device is asked for its hardware support. Of a CPU the feature flags say too little: some
    list bfloat16 instructions that run at half the float32 rate, others gain threefold. So a CPU is
    timed on a small matrix product, once a process, in about 20 ms.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type != "cpu":
        return False
    matrices = [torch.ones(384, 384, dtype=dtype) for dtype in (torch.float32, torch.bfloat16)]
    fastest = [float("inf"), float("inf")]
    for _ in range(8):
        for i, matrix in enumerate(matrices):
            start = time.perf_counter()
            torch.mm(matrix, matrix)
            fastest[i] = min(fastest[i], time.perf_counter() - start)
    return fastest[0] > GAIN_WORTH_HAVING * fastest[1]
