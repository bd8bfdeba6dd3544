"""A block is a figure of a paper: one class a figure, one attribute an arm.

conv        convolution with batch normalisation and ReLU, the unit of the others
residual    two or three convolutions beside a shortcut (and the plain pair without one)
"""
