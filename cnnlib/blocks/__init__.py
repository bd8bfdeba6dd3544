"""A block is a figure of a paper: one class per figure, one attribute per arm.

arguments   checks of what blocks and models are built with, made before any layer
attention   bottlenecks that weight channels or branches by the whole map: SE, SK, ResNeSt
classic     the repeated parts of VGG and Network in Network
conv        convolution with batch normalisation and ReLU, the unit of the others
dense       layers that read all earlier layers, and the step between their blocks
dilated     3x3 convolution with gaps between its taps
inception   parallel arms, concatenated; inception_v3 and inception_v4 hold the later versions
residual    two or three convolutions beside a shortcut (and the plain pair without one)
split       bottlenecks that split their channels: ResNeXt, IBN, Res2Net
unet        double convolution, and the step up with a skip (and the plain step without one)
"""
