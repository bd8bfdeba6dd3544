"""A block is a figure of a paper: one class per figure, one attribute per arm.

attention   bottlenecks that weight channels or branches by the whole map: SE, SK, ResNeSt
classic     what VGG and Network in Network repeat
conv        convolution with batch normalisation and ReLU, the unit of the others
dense       layers that read all layers before them, and the step between their blocks
dilated     3x3 convolution with gaps between its taps
inception   arms side by side, concatenated; inception_v3 and inception_v4 have those of later years
residual    two or three convolutions beside a shortcut (and the plain pair without one)
split       bottlenecks that split their channels: ResNeXt, IBN, Res2Net
unet        double convolution, and the step up beside a skip (and the plain step without one)
"""
