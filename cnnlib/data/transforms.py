"""Random changes of training images that keep their class, for a whole batch on its device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnlib._checks import check_count


def random_flip(images: Tensor) -> Tensor:
    """Mirror about half of the images, left to right.

    Shape:
        (N, C, H, W) -> (N, C, H, W)
    """
    _check_images(images)
    chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < 0.5
    return torch.where(chosen, images.flip(-1), images)


def random_crop(images: Tensor, padding: int = 1) -> Tensor:
    """Shift each image at random by up to `padding` pixels, with a black border.

    Shape:
        (N, C, H, W) -> (N, C, H, W)

    Args:
        images: A batch of images.
        padding: The largest shift, in pixels, in each of the four directions.

    Raises:
        ValueError: The padding is not a whole number from 0 to the side of an image.
    """
    _check_images(images)
    padding = check_count("padding", padding, max(images.shape[2:]), least=0, usual=1)
    count, _, height, width = images.shape
    padded = F.pad(images, [padding] * 4)
    shifts = torch.randint(0, 2 * padding + 1, (2, count, 1, 1), device=images.device)
    rows = shifts[0] + torch.arange(height, device=images.device)[:, None]
    columns = shifts[1] + torch.arange(width, device=images.device)
    number = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[number, rows, columns].permute(0, 3, 1, 2)


def _check_images(images):
    """Refuse anything that is not a batch of images."""
    if not isinstance(images, Tensor) or images.ndim != 4 or 0 in images.shape:
        given = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise ValueError(f"images of {given} must be a tensor (N, C, H, W): try images[None]")
