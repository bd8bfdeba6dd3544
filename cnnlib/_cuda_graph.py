"""A training step as a CUDA graph: captured once, then replayed without Python.

A small network's step is a hundred short kernels, and starting them one by one from Python takes
longer than running them. A replay starts all of them at once, on the memory of the capture: each
batch is copied there, and the results are copied out.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

STEPS_BEFORE_CAPTURE = 3  # meanwhile libraries choose their kernels and allocate memory


def is_capturable(net: nn.Module, optimizer: Optimizer) -> bool:
    """Return whether a step may be replayed without Python.

    The optimiser must read its learning rate on the device, which the fused ones do (Adam also
    needs capturable=True). A hook is Python, and a replay would skip it.
    """
    kinds = ("forward", "forward_pre", "backward", "backward_pre")
    hooks = (getattr(module, f"_{kind}_hooks") for module in net.modules() for kind in kinds)
    return not any(hooks) and all(
        group.get("fused") and group.get("capturable", True) for group in optimizer.param_groups
    )


class GraphedStep:
    """A training step that is captured as a CUDA graph, and then replayed.

    The first steps run eagerly. So does a batch of another shape, such as a short last one, and any
    step after a schedule has changed a captured setting of the optimiser, such as the momentum: a
    replay reads only the learning rate again. A step that waits for the device, such as one that
    prints its loss, always runs eagerly, and so does one whose capture fails, with one warning.

    Args:
        step: A function (images, labels) -> tuple of tensors.
        optimizer: The optimiser that the step uses.
        device: A CUDA device.
    """

    def __init__(self, step: Callable, optimizer: Optimizer, device: torch.device):
        self.step, self.optimizer, self.device = step, optimizer, device
        self.shapes: list[torch.Size] = []
        self.steps = 0
        self.graph: Any = None
        self.eager = False

    def __call__(self, *batch: Tensor) -> tuple[Tensor, ...]:
        shapes = [tensor.shape for tensor in batch]
        self.shapes = self.shapes or shapes
        if self.eager or shapes != self.shapes:
            return self.step(*batch)
        if self.steps < STEPS_BEFORE_CAPTURE:
            self.steps += 1
            return self.warm_up(batch)
        if self.graph is None and not self.try_to_capture(batch):
            return self.step(*batch)
        if captured_settings(self.optimizer) != self.settings:
            return self.step(*batch)
        for ours, given in zip(self.batch, batch, strict=True):
            ours.copy_(given)
        for lr, group in zip(self.lrs, self.optimizer.param_groups, strict=True):
            lr.fill_(group["lr"])
        self.graph.replay()
        return tuple(result.clone() for result in self.results)

    def warm_up(self, batch):
        """Run one step on a stream of its own, as a capture does, and note whether it waits."""
        mode = torch.cuda.get_sync_debug_mode()
        stream, ours = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        ours.wait_stream(stream)
        with warnings.catch_warnings(record=True) as caught, torch.cuda.stream(ours):
            warnings.simplefilter("always")
            # Libraries may wait in the first step, while they initialise.
            torch.cuda.set_sync_debug_mode("warn" if self.steps > 1 else "default")
            try:
                results = self.step(*batch)
            finally:
                torch.cuda.set_sync_debug_mode(mode)
        stream.wait_stream(ours)
        self.eager = any("synchronizing CUDA operation" in str(each.message) for each in caught)
        return results

    def try_to_capture(self, batch):
        """Capture a step and return whether that worked; if not, warn once and stay eager."""
        try:
            self.capture(batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.eager = True
            reason = str(error).strip().partition("\n")[0]
            warnings.warn(
                "the training step runs without a CUDA graph, more slowly, since it could not be "
                f"captured: {reason}",
                stacklevel=2,
            )
        return not self.eager

    def capture(self, batch):
        """Capture a step, computing nothing yet."""
        groups = self.optimizer.param_groups
        self.settings = captured_settings(self.optimizer)
        self.batch = [tensor.clone() for tensor in batch]
        self.lrs = [torch.tensor(group["lr"], device=self.device) for group in groups]
        before = [group["lr"] for group in groups]
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        try:
            for group, lr in zip(groups, self.lrs, strict=True):
                group["lr"] = lr
            with torch.cuda.graph(graph):
                self.results = self.step(*self.batch)
        finally:
            for group, lr in zip(groups, before, strict=True):
                group["lr"] = lr
        self.graph = graph


def captured_settings(optimizer: Optimizer) -> list[dict]:
    """Return the settings that a capture freezes: all of each group except its learning rate."""
    moving = ("params", "lr", "initial_lr")
    return [
        {name: value for name, value in group.items() if name not in moving}
        for group in optimizer.param_groups
    ]
