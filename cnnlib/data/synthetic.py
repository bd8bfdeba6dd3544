"""Ten drawn garments, in place of Fashion-MNIST where the archives cannot be had.

A garment is a few regions with soft edges. `_span` colours the pixels between two curves, `_curve`
is a curve through a handful of knots, and every knot is drawn at random for every image, so that a
class is drawn by one short function, thousands of images at a time. Lengths are pixels; x runs from
-14 to 14 with 0 in the middle, y from 0 at the top to 28.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F

SIDE = 28


def draw(count, seed=0):
    """Draw `count` grey images, the ten classes of Fashion-MNIST in turn.

    Shape:
        images (count, 1, 28, 28) uint8, labels (count) int64

    Args:
        count: number of images
        seed: the same seed draws the same images
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % len(GARMENTS)
    images = torch.empty(count, 1, SIDE, SIDE, dtype=torch.uint8)
    for label, garment in enumerate(GARMENTS):
        for chosen in (labels == label).nonzero().flatten().split(250):
            grey = garment(_Sheet(len(chosen), generator)).clamp(0, 1)
            images[chosen, 0] = (grey * 255).round().to(torch.uint8)
    return images, labels


class _Sheet:
    """The pixels of `count` images, each in a pose of its own, and their random numbers."""

    def __init__(self, count, generator):
        self.count, self.generator = count, generator
        pixel = torch.arange(SIDE) + 0.5
        self.y = (pixel.view(1, SIDE, 1) - self.vary(-1, 1) - 14) / self.vary(0.88, 1.04) + 14
        self.x = (pixel - self.vary(-1, 1) - 14) / self.vary(0.88, 1.04)
        self.x = self.x + self.vary(-0.05, 0.05) * (self.y - 14)

    def vary(self, low, high):
        """One number an image, uniform between low and high."""
        return low + (high - low) * torch.rand(self.count, 1, 1, generator=self.generator)

    def chance(self, share):
        """1 in that share of the images, 0 in the others."""
        return (self.vary(0, 1) < share).float()

    def noise(self, cells):
        """Smooth noise between -1 and 1, `cells` blobs along a side."""
        coarse = torch.rand(self.count, 1, cells, cells, generator=self.generator) * 2 - 1
        return F.interpolate(coarse, SIDE, mode="bilinear").squeeze(1)

    def fabric(self):
        """The grey of a cloth: plain, striped or printed, with folds."""
        across, along = self.chance(0.6), self.chance(0.4)
        wave = (self.x * across + self.y * along) * self.vary(0.8, 2.4) + self.vary(0, 6)
        stripes = self.chance(0.2) * self.vary(0.1, 0.4) * wave.sin()
        print_ = self.chance(0.25) * self.vary(0.2, 0.5) * self.noise(14)
        folds = 0.12 * self.noise(5) + 0.06 * self.noise(SIDE)
        return (self.vary(0.4, 0.95) + stripes + print_ + folds).clamp(min=0.2)


def _curve(at, *knots):
    """The broken line through the knots (position, value), level beyond its ends."""
    value = knots[0][1]
    for (start, low), (end, high) in pairwise(knots):
        value = value + (high - low) * ((at - start) / (end - start)).clamp(0, 1)
    return value


def _span(at, low, high):
    """1 between low and high, 0 outside, and half-way on the edge."""
    return (at - low + 0.5).clamp(0, 1) * (high - at + 0.5).clamp(0, 1)


def _either(first, *others):
    """The union of regions."""
    for other in others:
        first = torch.maximum(first, other)
    return first


def _upper(s, hem, flare, cuff, reach, neck):
    """Everything with a neck and two arms: the region it covers, the seams of its sleeves darker.

    Args:
        s: the sheet to draw on
        hem: y of its lower edge
        flare: how much wider it is at the hem
        cuff: y where the sleeves end
        reach: how far a sleeve stands off at the cuff
        neck: depth of the neckline
    """
    side, width = s.x.abs(), s.vary(5.5, 7)
    top = _curve(side, (2.5, 1.5), (width, s.vary(2.5, 3.5)), (width + 4, s.vary(6, 9)))
    neckline = _span(s.y, -9, 1.5 + neck * (1 - side / s.vary(3, 4.5)))
    seam = _curve(s.y, (8, width), (hem, width + flare))
    body = _span(s.y, top, hem) * _span(side, -9, seam)
    outer = _curve(s.y, (3, width), (8, width + 2.5), (cuff, width + reach))
    inner = _curve(s.y, (8, width - 0.5), (cuff, width + reach - s.vary(2.5, 3.5)))
    arm = _span(s.y + 0.25 * side, top, cuff + 0.25 * width) * _span(side, inner, outer)
    shadow = _span(side, seam - 0.3, seam + 0.3) * _span(s.y, 7, cuff) * s.vary(0.1, 0.6)
    return _either(body, arm) * (1 - neckline) * (1 - shadow)


def _badge(s):
    """A picture on the chest, lighter or darker than the cloth."""
    where = _span(s.x.abs(), -9, s.vary(1, 4)) * _span(s.y, s.vary(7, 10), s.vary(11, 16))
    return where * s.chance(0.35) * s.vary(-0.5, 0.5)


def _tshirt(s):
    cuff = s.vary(8, 12) + 12 * s.chance(0.05)
    region = _upper(s, s.vary(24, 27), s.vary(-0.5, 1), cuff, s.vary(3.5, 5.5), s.vary(1, 4))
    return region * (s.fabric() + _badge(s))


def _trouser(s):
    side = s.x.abs()
    waist, crotch = s.vary(0.5, 2), s.vary(7, 11)
    outer = _curve(s.y, (1, s.vary(3.5, 5)), (8, s.vary(5, 6.5)), (27, s.vary(4.5, 7.5)))
    inner = _curve(s.y, (crotch - 1, -1), (crotch + 2, 0.4), (27, s.vary(1, 2.5)))
    region = _span(side, inner, outer) * _span(s.y, waist, s.vary(26, 27.5))
    belt = _span(s.y, waist, waist + 2)
    return region * (s.fabric() + belt * s.vary(-0.3, 0.2))


def _pullover(s):
    hem = s.vary(22, 25.5)
    region = _upper(s, hem, s.vary(-1, 0.5), s.vary(22, 27), s.vary(3, 5), s.vary(0, 2.5))
    rib = _span(s.y, hem - 2, hem) * s.vary(-0.3, 0.1)
    return region * (s.fabric() + _badge(s) + rib)


def _dress(s):
    side = s.x.abs()
    hem, waist = s.vary(25.5, 27.5), s.vary(9, 13)
    half = _curve(s.y, (2, s.vary(2.5, 4.5)), (waist, s.vary(2.5, 4.5)), (26, s.vary(4, 9)))
    neckline = _span(s.y, -9, s.vary(0.5, 5) * (1 - side / s.vary(1.5, 3)))
    skirt = _span(s.y, s.vary(0.5, 1.5), hem) * _span(side, -9, half)
    sleeve = _curve(s.y, (1, 3), (7, s.vary(5, 7)), (20, s.vary(7, 9)))
    arm = _span(s.y, 1.5, s.vary(6, 18)) * _span(side, sleeve - 3, sleeve) * s.chance(0.35)
    belt = _span(s.y, waist - 0.6, waist + 0.6) * s.chance(0.4) * s.vary(-0.4, 0.3)
    return _either(skirt * (1 - neckline), arm) * (s.fabric() + belt)


def _coat(s):
    side = s.x.abs()
    region = _upper(s, s.vary(25.5, 27.5), s.vary(0, 2.5), s.vary(22, 27), s.vary(3, 4.5), 1.5)
    opening = _span(side, -9, s.vary(0, 0.5)) * s.vary(0.2, 0.7)
    lapels = _span(side, -9, _curve(s.y, (1, 3.5), (s.vary(7, 13), 0))) * s.vary(-0.35, 0.2)
    return region * (s.fabric() - opening + lapels)


def _sandal(s):
    ground, rise = s.vary(18, 23), s.vary(5, 11) * s.chance(0.4)
    sole = ground - _curve(s.x, (-7, 0), (-2, rise / 4), (7, rise), (13, rise))
    footbed = _span(s.y, sole - s.vary(0.3, 1), sole + s.vary(0.6, 1.6)) * _span(s.x, -13, 13)
    heel = _span(s.x, s.vary(9, 11.5), 12.5) * _span(s.y, sole, ground + 1)
    toe, instep = s.vary(-8, -4), s.vary(5, 9)
    straps = [
        _ring(s, toe, sole, s.vary(3, 5), s.vary(3, 5)),
        _ring(s, s.vary(-4, 4), sole, s.vary(4, 8), s.vary(5, 7)) * s.chance(0.6),
        _ring(s, instep, sole, s.vary(3, 5), s.vary(6, 9)) * s.chance(0.6),
    ]
    above = _span(s.y, 0, sole) * _span(s.x, -12, 13)
    return _either(footbed, heel, _either(*straps) * above) * s.fabric()


def _ring(s, x, y, width, height):
    """The outline of an ellipse around (x, y): a strap or a handle."""
    radius = (((s.x - x) / width) ** 2 + ((s.y - y) / height) ** 2).sqrt()
    thickness = s.vary(0.3, 1)
    return _span((radius - 1) * torch.minimum(width, height), -thickness, thickness)


def _shirt(s):
    side = s.x.abs()
    cuff = s.vary(22, 27) - 13 * s.chance(0.2)
    region = _upper(s, s.vary(25, 27.5), s.vary(-0.5, 1.5), cuff, s.vary(3, 5), s.vary(1, 3))
    buttons = _span(side, -9, 0.3) * (s.y * s.vary(1.2, 2)).sin() * s.vary(0.2, 0.6)
    collar = _span(side, s.vary(0.5, 1.5), s.vary(3, 4)) * _span(s.y, 0, s.vary(4, 6))
    return region * (s.fabric() - buttons + collar * s.vary(0, 0.5))


def _sneaker(s):
    ground, heel = s.vary(19, 22), s.vary(6.5, 9.5)
    instep = (s.vary(0, 3), s.vary(8, 10.5))
    height = _curve(s.x, (-13.5, 1.5), (-12, 4), (-7, s.vary(4.5, 6)), instep, (6, 6.5), (12, heel))
    region = _span(s.y, ground - height, ground) * _span(s.x, -13, 13)
    sole = _span(s.y, ground - s.vary(1.5, 2.5), ground + 1) * s.vary(-0.5, 0.5)
    slanted = s.x - 0.5 * (s.y - ground)
    laces = _span(slanted, s.vary(0, 2), s.vary(4, 7)) * (slanted * 2.2).sin() * 0.25
    flash = _span(s.x + s.vary(-1, 1) * (s.y - 16), s.vary(2, 6), s.vary(6, 9)) * s.vary(-0.4, 0.4)
    return region * (s.fabric() + sole + laces + flash)


def _bag(s):
    side = s.x.abs()
    top, bottom = s.vary(8, 14), s.vary(22, 26)
    half = _curve(s.y, (top - 1, s.vary(6, 11)), (top + 2, s.vary(9, 12)), (26, s.vary(9, 13)))
    body = _span(side, -9, half) * _span(s.y, top, bottom)
    handle = _ring(s, 0, top, s.vary(3.5, 8), s.vary(5, 11)) * _span(s.y, 0, top)
    flap = _span(s.y, top, top + s.vary(3, 8)) * s.chance(0.6) * s.vary(-0.35, 0.25)
    clasp = _span(side, -9, s.vary(0.5, 1.5)) * _span(s.y, top + 3, top + s.vary(4.5, 7))
    return _either(body, handle * s.chance(0.85)) * (s.fabric() + flap + clasp * s.vary(-0.4, 0.4))


def _ankle_boot(s):
    ground, ankle = s.vary(23, 27), s.vary(-1, 3)
    toe, instep, shaft = (-11.5, s.vary(5, 6)), (ankle - 3, s.vary(7.5, 9.5)), s.vary(13, 20)
    height = _curve(s.x, (-13.5, 2), toe, instep, (ankle, s.vary(11, 12.5)), (ankle + 0.8, shaft))
    arch, heel = s.vary(0, 4), s.vary(5, 7)
    under = ground - _curve(s.x, (-7, 0), (0, arch), (heel, arch), (heel + 0.5, 0))
    region = _span(s.y, ground - height, under) * _span(s.x, -13, s.vary(10, 12.5))
    sole = _span(s.y, under - s.vary(1, 2), under + 1) * s.vary(-0.5, 0.3)
    gusset = _span(s.x, ankle + 2, ankle + s.vary(3, 6)) * s.chance(0.4) * s.vary(-0.4, 0.3)
    return region * (s.fabric() + sole + gusset)


# In the order of Fashion-MNIST's labels.
GARMENTS = (
    _tshirt,
    _trouser,
    _pullover,
    _dress,
    _coat,
    _sandal,
    _shirt,
    _sneaker,
    _bag,
    _ankle_boot,
)
