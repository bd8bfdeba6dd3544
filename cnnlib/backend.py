"""How a training step runs: device, precision, memory format, and several processes."""

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from cnnlib._checks import check_device, check_flags

WORTHWHILE_GAIN = 1.5  # the speedup that justifies bfloat16's rounding
EVALUATION_FACTOR = 4  # evaluation keeps no activations, so batches can be larger
GPU_STEPS_BETWEEN_READS = 50


@dataclass(frozen=True)
class Backend:
    """How training steps run: device, precision, memory format and processes.

    Args:
        device: Where the network and its batches live.
        dtype: Type of the products in convolutions and linear layers. Weights stay float32.
        memory_format: Order of an image batch in memory: channels last suits most kernels.
        graph: Whether a training step may be captured as a CUDA graph.
        rank: Number of this process, from 0.
        world_size: Number of processes that train the network together.
    """

    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format
    graph: bool = False
    rank: int = 0
    world_size: int = 1

    @property
    def precision(self) -> str:
        """The short name of the precision: "fp32" or "bf16"."""
        return "bf16" if self.dtype is torch.bfloat16 else "fp32"

    @property
    def steps_between_reads(self) -> int:
        """Training steps between two reads of the loss: a read makes the CPU wait for a GPU."""
        return 1 if self.device.type == "cpu" else GPU_STEPS_BETWEEN_READS

    def to_device(self, net: nn.Module) -> nn.Module:
        """Move a network, in place, to the device and the memory format."""
        return net.to(self.device).to(memory_format=self.memory_format)

    def to_memory_format(self, images: Tensor) -> Tensor:
        """Return a batch of images in the memory format."""
        return images.contiguous(memory_format=self.memory_format)

    def autocast(self) -> AbstractContextManager:
        """Return the context in which a forward pass uses the precision."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def maybe_capture(self, step: Callable, net: nn.Module, optimizer: Optimizer) -> Callable:
        """Return the training step, as a CUDA graph if it can be captured as one."""
        if self.graph:
            from cnnlib._cuda_graph import GraphedStep, is_capturable

            if is_capturable(net, optimizer):
                return GraphedStep(step, optimizer, self.device)
        return step

    @contextmanager
    def retain_heap(self) -> Iterator[None]:
        """Keep the memory that one step frees for the next step, on a CPU.

        glibc returns a large block to the system as soon as it is freed. The next step asks for it
        again, and the system zeroes it page by page. On a GPU, PyTorch keeps freed memory itself.
        """
        glibc = _glibc() if self.device.type == "cpu" else None
        if glibc:
            glibc.mallopt(_MMAP_MAX, 0)
            glibc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        try:
            yield
        finally:
            if glibc:
                glibc.mallopt(_MMAP_MAX, 2**16)
                # The values at which glibc's own tuning of the two thresholds ends.
                glibc.mallopt(_MMAP_THRESHOLD, 2**25)
                glibc.mallopt(_TRIM_THRESHOLD, 2**26)
                glibc.malloc_trim(0)

    # Several processes: each holds the whole network and computes its shard of every batch.

    def shard(self, batches: Any) -> Any:
        """Return this process's shard of each training batch.

        Raises:
            ValueError: The shards would be unequal, so their mean would not be that of the batch.
        """
        if self.world_size == 1:
            return batches
        sizes = {"batch_size": batches.batch_size, "train": len(batches.labels)}
        for name, size in sizes.items():
            if size % self.world_size:
                raise ValueError(
                    f"{name}={size} must be a multiple of the {self.world_size} processes: "
                    f"try {name}={max(1, size // self.world_size) * self.world_size}"
                )
        return batches.shard(self.rank, self.world_size)

    def shard_for_evaluation(self, batches: Any) -> Any:
        """Return this process's shard of the evaluation batches, which are larger on a GPU."""
        factor = EVALUATION_FACTOR if self.device.type == "cuda" else 1
        if factor == self.world_size == 1:
            return batches
        return batches.rebatch(factor * batches.batch_size).shard(self.rank, self.world_size)

    def parallel(self, net: nn.Module) -> nn.Module:
        """Return the network, wrapped to average gradients if there are several processes."""
        return DistributedDataParallel(net) if self.world_size > 1 else net

    def broadcast_buffers(self, net: nn.Module) -> None:
        """Copy the buffers of rank 0 into the network. All processes must call this."""
        if self.world_size > 1:
            for buffer in net.buffers():
                dist.broadcast(buffer, src=0)

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of a tensor over the processes. All processes must call this."""
        if self.world_size > 1:
            dist.all_reduce(tensor)
        return tensor

    def all_gather(self, value: Any) -> list:
        """Return the values of all processes, in their order. All processes must call this."""
        values = [value] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(values, value)
        return values


def choose_backend(
    device: torch.device | str, precision: str = "auto", graph: bool = False
) -> Backend:
    """Choose the precision and memory format for a device, and find rank and world size.

    Args:
        device: A torch device or its name.
        precision: "bf16", with channels last; "fp32", in the contiguous format; or "auto": the
            environment variable CNNLIB_PRECISION, else bf16 if it is much faster on this machine,
            else fp32. With "auto", fp32 uses channels last where that is faster.
        graph: Whether a step may be captured as a CUDA graph, given a CUDA device and one process.

    Raises:
        ValueError: The precision, or CNNLIB_PRECISION, is not one of the three, or the device is
            not one of this machine.
    """
    is_auto, name = isinstance(precision, str) and precision == "auto", "precision"
    if is_auto and os.environ.get("CNNLIB_PRECISION"):
        name, precision = "CNNLIB_PRECISION", os.environ["CNNLIB_PRECISION"]
    if not isinstance(precision, str) or precision not in ("auto", "bf16", "fp32"):
        raise ValueError(
            f"{name}={precision!r} must be 'auto', 'bf16' or 'fp32': try {name}='auto'"
        )
    device = check_device(device)
    check_flags(graph=graph)
    rank, world_size = 0, 1
    if dist.is_available() and dist.is_initialized():
        rank, world_size = dist.get_rank(), dist.get_world_size()
    if precision == "auto":
        faster = bf16_is_faster(device.type)
        if world_size > 1:  # all of them must agree
            agreed = torch.tensor(int(faster), device=device)
            dist.all_reduce(agreed, dist.ReduceOp.MIN)
            faster = bool(agreed)
        precision = "bf16" if faster else "fp32"
    last = precision == "bf16" or (is_auto and channels_last_is_faster(device.type))
    return Backend(
        device,
        torch.bfloat16 if precision == "bf16" else torch.float32,
        torch.channels_last if last else torch.contiguous_format,
        graph and device.type == "cuda" and world_size == 1,
        rank,
        world_size,
    )


@cache
def bf16_is_faster(device_type: str) -> bool:
    """Return whether bfloat16 products are much faster than float32 ones on this machine.

    On a CUDA device, hardware support decides. CPU feature flags are not enough: some CPUs list
    bfloat16 instructions that run at half the float32 rate, while others gain threefold. So a CPU
    is timed on a small matrix product, once per process, in about 20 ms.
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
    return fastest[0] > WORTHWHILE_GAIN * fastest[1]


def channels_last_is_faster(device_type: str) -> bool:
    """Return whether float32 convolutions are faster in the channels-last format.

    With oneDNN on a CPU, training steps took 0.72 to 0.97 times as long (1.03 for a U-Net).
    """
    return device_type == "cpu" and torch.backends.mkldnn.is_available()


# The settings of mallopt, as malloc.h numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4


@cache
def _glibc() -> Any:
    """Return the C library if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


@contextmanager
def distributed() -> Iterator[int]:
    """Join the process group if torchrun started this process, and leave it at the end.

    Yields:
        The rank of this process, from 0.

    Raises:
        ValueError: There are more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0
        return
    communication = "gloo"
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"--nproc-per-node must be at most the {gpus} GPUs here: "
                f"try --nproc-per-node {gpus}"
            )
        torch.cuda.set_device(local)
        communication = "nccl"
    dist.init_process_group(communication)
    yield dist.get_rank()
    dist.destroy_process_group()


def peer_failed(error: Exception) -> bool:
    """Return whether an error from gloo or NCCL means that another process has ended."""
    if not (dist.is_available() and dist.is_initialized()):
        return False
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "connection" in text or "pipe" in text
