"""Ten synthetic garments, which replace Fashion-MNIST when it cannot be downloaded.

Each class is a drawing, which every image bends and fills with cloth in its own way.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnlib._checks import check_count

SIDE = 28
BEND = 0.06  # the farthest that a point of the drawing moves, as a fraction of half the image

# In the order of Fashion-MNIST's labels. # is cloth, - a darker detail, + a lighter or darker one;
# where a letter stands, half of the images have cloth.
DRAWINGS = Path(__file__).with_name("drawings.txt").read_text(encoding="utf-8")


def draw(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw grey images of the ten classes of Fashion-MNIST in turn.

    Shape:
        images (count, 1, 28, 28) uint8, labels (count) int64

    Args:
        count: Number of images.
        seed: Sets the images.
    """
    count = check_count("count", count, 10**6)
    seed = check_count("seed", seed, 2**64 - 1, least=-(2**63), usual=0)
    generator = torch.Generator().manual_seed(seed)
    blocks = [map(str.split, block.splitlines()) for block in DRAWINGS.strip().split("\n\n")]
    drawings = [drawing for block in blocks for drawing in zip(*block, strict=True)]
    labels = torch.arange(count) % len(drawings)
    images = torch.empty(count, 1, SIDE, SIDE, dtype=torch.uint8)
    for label, drawing in enumerate(drawings[:count]):
        for chosen in (labels == label).nonzero().flatten().split(500):
            grey = _vary(drawing, len(chosen), generator)
            images[chosen] = (grey * 255).round().to(torch.uint8)
    return images, labels


def _vary(drawing, count, generator):
    """Return images (count, 1, 28, 28) of a drawing, with grey levels between 0 and 1."""

    def uniform(low, high, *shape):
        """Draw for each image a number, or an array of this shape."""
        numbers = torch.rand(count, *(shape or (1, 1, 1)), generator=generator)
        return low + (high - low) * numbers

    def some(fraction):
        """Return 1 for this fraction of the images, and 0 for the others."""
        return (uniform(0, 1) < fraction).float()

    def blobs(cells, channels=1):
        """Draw smooth noise between -1 and 1, with this number of blobs along a side."""
        return F.interpolate(uniform(-1, 1, channels, cells, cells), SIDE, mode="bilinear")

    characters = torch.tensor([[[ord(character) for character in row] for row in drawing]])
    of_kind = {kind: (characters == ord(kind)).float() for kind in "#-+abcd"}
    cloth = of_kind["#"] + of_kind["-"] + of_kind["+"]
    cloth = cloth + sum(of_kind[letter] * some(0.5) for letter in "abcd")
    detail = of_kind["-"] * uniform(-0.6, -0.1) + of_kind["+"] * uniform(-0.4, 0.4)

    matrix = 1.12 * torch.eye(2, 3) + uniform(-0.07, 0.07, 2, 3)  # scales, shears and shifts
    grid = F.affine_grid(matrix, [count, 1, SIDE, SIDE], align_corners=False)
    grid = grid + BEND * blobs(4, channels=2).permute(0, 2, 3, 1)
    bent = F.grid_sample(torch.cat([cloth, detail], dim=1), grid, align_corners=False)
    cloth, detail = bent.split(1, dim=1)

    pixel = torch.arange(SIDE)
    wave = (pixel * uniform(-2, 2) + pixel.view(SIDE, 1) * uniform(-2, 2)).sin()
    stripes = some(0.2) * uniform(0.1, 0.4) * wave
    print_ = some(0.25) * uniform(0.2, 0.5) * blobs(14)
    folds = 0.12 * blobs(5) + 0.06 * blobs(SIDE)
    grey = (uniform(0.4, 0.95) + stripes + print_ + folds + detail).clamp(0.1, 1)
    return grey * (2.5 * cloth - 0.75).clamp(0, 1)  # edges as sharp as in a photograph
