"""Labelled images that stay on the device.

batches      labelled images in batches, and the Data that `fit` takes
mnist        Fashion-MNIST, with a class for every image
scenes       several garments on one canvas, with a class for every pixel
transforms   random changes that do not alter the class of an image
synthetic    the stand-in for when Fashion-MNIST cannot be downloaded
"""

from cnnlib.data.batches import Batches, Data
from cnnlib.data.mnist import fashion_mnist
from cnnlib.data.scenes import fashion_scenes
from cnnlib.data.transforms import random_crop, random_flip

__all__ = ["Batches", "Data", "fashion_mnist", "fashion_scenes", "random_crop", "random_flip"]
