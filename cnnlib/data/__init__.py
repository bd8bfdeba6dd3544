"""Images that stay on the device.

mnist     Fashion-MNIST, a class for every image
scenes    several garments on one canvas, a class for every pixel
augment   random changes that leave the class of an image
standin   drawn garments, for a machine that cannot fetch the real ones
"""

from cnnlib.data.mnist import Batches, Data, fashion_mnist
from cnnlib.data.scenes import fashion_scenes, scene_grid
from cnnlib.data.transforms import random_crop, random_flip

__all__ = [
    "Batches",
    "Data",
    "fashion_mnist",
    "fashion_scenes",
    "random_crop",
    "random_flip",
    "scene_grid",
]
