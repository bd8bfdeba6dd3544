"""A block is a figure of a paper: one class a figure, one attribute an arm.

attention   bottlenecks that weigh channels or branches by what the whole map shows: SE, SK, ResNeSt
classic     what VGG and Network in Network repeat
conv        convolution with batch normalisation and ReLU, the unit of the others
dense       layers that read all layers before them, and the step between their blocks
dilated     3x3 convolution with room between its taps
inception   arms side by side, concatenated; inception_v3 and inception_v4 have those of later years
residual    two or three convolutions beside a shortcut (and the plain pair without one)
split       bottlenecks that part their channels: ResNeXt, IBN, Res2Net
unet        double convolution, and the step up beside a skip (and the plain step without one)
"""
