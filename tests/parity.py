"""Oracles: a published network with random weights, and the comparison of its logits with ours."""

import torch
from torch import nn

COLOUR = {"in_channels": 3, "num_classes": 1000}


def randomise(net, size=96):
    """Draw weights and statistics that no default has, and that let the image reach the logits.

    The statistics are those of a batch of noise, jittered: so no layer drowns what it is given.
    """
    torch.manual_seed(0)
    net.eval()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
        norm.train().momentum = 1.0
    with torch.no_grad():
        net(torch.randn(4, 3, size, size))
    for norm in norms:
        norm.running_mean += torch.empty_like(norm.running_mean).uniform_(-0.2, 0.2)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
    return net.eval()


def relative(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def assert_same_logits(ours, theirs, height, width):
    images = torch.randn(2, 3, height, width)
    with torch.inference_mode():
        expected, found = theirs(images), ours(images)
    assert relative(expected[:1], expected[1:]) > 0.01, "the image does not reach the logits"
    assert relative(found, expected) < 1e-4
