"""What makes a training step fast or parallel: precision, memory format, CUDA graphs, processes.

`train.fit` stays readable.
"""

import ctypes
import os
import sys
import time
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

GAIN_WORTH_HAVING = (
    1.5  # bfloat16 has to beat float32 by this factor, or rounding costs more than it buys
)
STEPS_BEFORE_RECORDING = 3  # in which libraries choose their kernels and allocate their memory
EVALUATED_AT_ONCE = 4  # training batches: where nothing is kept for a backward pass they fit


@dataclass(frozen=True)
class Engine:
    """How a step runs on one device, as one of one or several processes.

    Args:
        device: Where the network and its batches live.
        dtype: Type of the products inside convolutions and linear layers. Weights stay float32.
        memory_format: Order of an image batch in memory: channels last suits most kernels.
        graph: Whether a training step may be recorded as a CUDA graph.
        rank: Number of this process, from 0.
        processes: How many train the network together.
    """

    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format
    graph: bool = False
    rank: int = 0
    processes: int = 1

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

    def fastest(self, step, net, optimizer):
        """Return a training step that does the same as `step`, on a GPU from a recording."""
        if self.graph and can_be_recorded(net, optimizer):
            return Recorded(step, optimizer, self.device)
        return step

    @contextmanager
    def keep_memory(self):
        """Keep the memory that a step frees for the next one, where the device is a CPU.

        glibc hands a large block back to the system as soon as it is free. The next step asks for
        it again, and the system zeroes it, page by page. PyTorch does the same for a GPU by itself.
        """
        kept = self.device.type == "cpu" and allocator()
        if kept:
            kept.mallopt(MMAP_MAX, 0)
            kept.mallopt(TRIM_THRESHOLD, 2**31 - 1)
        try:
            yield
        finally:
            if kept:
                kept.mallopt(MMAP_MAX, 2**16)
                # Where glibc's own tuning of the two thresholds ends.
                kept.mallopt(MMAP_THRESHOLD, 2**25)
                kept.mallopt(TRIM_THRESHOLD, 2**26)
                kept.malloc_trim(0)

    def to_evaluate(self, batches):
        """Return batches for an evaluation: larger ones on a GPU, this process's part of them."""
        factor = EVALUATED_AT_ONCE if self.device.type == "cuda" else 1
        if factor == self.processes == 1:
            return batches
        return batches.regroup(factor * batches.batch_size, self.rank, self.processes)

    # Several processes: each has the whole network and computes its part of every batch.

    def to_train(self, batches):
        """Return this process's equal part of each batch.

        Raises:
            ValueError: The parts would not be equal, so their mean would not be the batch's.
        """
        if self.processes == 1:
            return batches
        sizes = {"batch_size": batches.batch_size, "train": len(batches.labels)}
        for name, size in sizes.items():
            if size % self.processes:
                raise ValueError(
                    f"{name}={size} must be a multiple of the {self.processes} processes: "
                    f"try {name}={max(1, size // self.processes) * self.processes}"
                )
        return batches.regroup(batches.batch_size, self.rank, self.processes)

    def parallel(self, net):
        """Return the network to train: with several processes, one that averages gradients."""
        return DistributedDataParallel(net) if self.processes > 1 else net

    def agree(self, net):
        """Give the network the buffers of the first process: each has seen its images only."""
        if self.processes > 1:
            for buffer in net.buffers():
                distributed.broadcast(buffer, src=0)

    def total(self, tensor):
        """Return the sum of a tensor over the processes."""
        if self.processes > 1:
            distributed.all_reduce(tensor)
        return tensor


def engine(device, precision="auto", graph=True):
    """Choose precision and memory format for a device, and find the other processes.

    Args:
        device: A torch device or its name.
        precision: "bf16", with channels last; "fp32", which leaves all as it is; or "auto": what
            the environment variable CNNLIB_PRECISION says, else bf16 where this machine gains from
            it, else fp32; this fp32 has channels last where that gains.
        graph: Whether a step may be recorded as a CUDA graph: on a CUDA device, in one process.

    Raises:
        ValueError: The precision, or CNNLIB_PRECISION, is not one of the three.
    """
    left_to_us = precision == "auto"
    precision = chosen_precision(precision)
    device = torch.device(device)
    rank, processes = 0, 1
    if distributed.is_available() and distributed.is_initialized():
        rank, processes = distributed.get_rank(), distributed.get_world_size()
    if precision == "auto":
        pays = bf16_pays(device.type)
        if processes > 1:  # they must all do the same
            agreed = torch.tensor(int(pays), device=device)
            distributed.all_reduce(agreed, distributed.ReduceOp.MIN)
            pays = bool(agreed)
        precision = "bf16" if pays else "fp32"
    last = precision == "bf16" or (left_to_us and channels_last_pays(device.type))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    memory_format = torch.channels_last if last else torch.contiguous_format
    graph = graph and device.type == "cuda" and processes == 1
    return Engine(device, dtype, memory_format, graph, rank, processes)


def chosen_precision(precision):
    """Return the precision that is asked for; "auto" leaves it to CNNLIB_PRECISION, if that is set.

    Raises:
        ValueError: It is not "auto", "bf16" or "fp32".
    """
    name, wanted = "precision", precision
    if precision == "auto" and os.environ.get("CNNLIB_PRECISION"):
        name, wanted = "CNNLIB_PRECISION", os.environ["CNNLIB_PRECISION"]
    if wanted not in ("auto", "bf16", "fp32"):
        raise ValueError(f"{name}={wanted!r} must be 'auto', 'bf16' or 'fp32': try {name}='auto'")
    return wanted


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


def channels_last_pays(device_type):
    """Say whether float32 convolutions gain from images whose channels lie side by side.

    With oneDNN's kernels a CPU does: a training step of the networks here took 0.97 to 0.72 times
    as long (U-Net 1.03). A GPU without bfloat16 does not.
    """
    return device_type == "cpu" and torch.backends.mkldnn.is_available()


# The settings of mallopt, as malloc.h numbers them.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4


@cache
def allocator():
    """Return the C library, if it is glibc, else None."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


# CUDA graphs


class Recorded:
    """A training step that is recorded as a CUDA graph, and then replayed.

    A small network's step is a hundred short kernels, and starting them one by one from Python
    takes longer than running them. A replay starts all of them at once, on the memory that the
    recording used: so the batch is copied there, and the results are copied out.

    The first steps run one by one. So does a batch of another shape, as the last short one, and
    every batch while a schedule has another optimiser setting than the recording, such as momentum;
    the learning rate alone is read anew in each replay. If a step waits for the device, as one that
    prints a loss does, it cannot be recorded, and all run one by one; if the recording fails, they
    do, too, with one warning.

    Args:
        step: A function of a batch, (images, labels), that returns a tuple of tensors.
        optimizer: The one that it steps.
        device: A CUDA device.
    """

    def __init__(self, step, optimizer, device):
        self.step, self.optimizer, self.device = step, optimizer, device
        self.shapes = None
        self.steps = 0
        self.graph = None
        self.waits = False

    def __call__(self, *batch):
        shapes = [tensor.shape for tensor in batch]
        self.shapes = self.shapes or shapes
        if self.waits or shapes != self.shapes:
            return self.step(*batch)
        if self.steps < STEPS_BEFORE_RECORDING:
            self.steps += 1
            return self.warm_up(batch)
        if self.graph is None and not self.try_to_record(batch):
            return self.step(*batch)
        if settings(self.optimizer) != self.settings:
            return self.step(*batch)
        for ours, given in zip(self.batch, batch, strict=True):
            ours.copy_(given)
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.graph.replay()
        return tuple(result.clone() for result in self.results)

    def warm_up(self, batch):
        """Run one step on a stream of its own, as a recording does, and see whether it waits."""
        mode = torch.cuda.get_sync_debug_mode()
        stream, ours = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        ours.wait_stream(stream)
        with warnings.catch_warnings(record=True) as caught, torch.cuda.stream(ours):
            warnings.simplefilter("always")
            # In the first step libraries may wait while they set themselves up.
            torch.cuda.set_sync_debug_mode("warn" if self.steps > 1 else "default")
            try:
                results = self.step(*batch)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        stream.wait_stream(ours)
        self.waits = any("synchronizing CUDA operation" in str(each.message) for each in caught)
        return results

    def try_to_record(self, batch):
        """Record a step; if that fails, warn once and return False: all steps run one by one."""
        try:
            self.record(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.waits = True
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                "the training step runs without a CUDA graph, more slowly, since it could not be "
                f"recorded: {reason}",
                stacklevel=2,
            )
        return not self.waits

    def record(self, batch):
        """Record a step. Nothing is computed yet.

        Raises:
            RuntimeError: It cannot be recorded.
        """
        groups = self.optimizer.param_groups
        self.settings = settings(self.optimizer)
        self.batch = [tensor.clone() for tensor in batch]
        self.rates = [torch.tensor(group["lr"], device=self.device) for group in groups]
        before = [group["lr"] for group in groups]
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            for group, rate in zip(groups, self.rates, strict=True):
                group["lr"] = rate
            with torch.cuda.graph(graph):
                self.results = self.step(*self.batch)
        finally:
            for group, lr in zip(groups, before, strict=True):
                group["lr"] = lr
        self.graph = graph


def settings(optimizer):
    """Return what a recording holds fast: each group's settings but its learning rate."""
    moving = ("params", "lr", "initial_lr")
    return [
        {name: value for name, value in group.items() if name not in moving}
        for group in optimizer.param_groups
    ]


def can_be_recorded(net, optimizer):
    """Tell whether a step may be replayed without Python.

    The optimiser must read its learning rate on the device, which the fused ones do (Adam also
    needs capturable=True). A hook is Python, and a replay would skip it.
    """
    hooked = any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in net.modules()
    )
    return not hooked and all(
        group.get("fused") and group.get("capturable", True) for group in optimizer.param_groups
    )


# Several processes


@contextmanager
def processes():
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Yields:
        The number of this process, from 0.

    Raises:
        ValueError: There are more processes than GPUs.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield 0
        return
    backend = "gloo"
    if torch.cuda.is_available():
        local, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"--nproc-per-node must be at most the {gpus} GPUs here: "
                f"try --nproc-per-node {gpus}"
            )
        torch.cuda.set_device(local)
        backend = "nccl"
    distributed.init_process_group(backend)
    yield distributed.get_rank()
    distributed.destroy_process_group()


def lost_a_process(error):
    """Tell whether an error means that another process has ended, as backends put it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return False
    text = str(error).lower()
    return isinstance(error, distributed.DistError) or "connection" in text or "pipe" in text
