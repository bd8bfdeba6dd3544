"""Every model at its smallest image: shapes, refusals below it, and the same scores in every way."""

import copy
import pickle

import pytest
import torch

from cnnlib.models import MODELS, cifar_resnet, unet
from cnnlib.trace import trace

SMALLEST = dict.fromkeys(MODELS, 1) | {  # pixels of a side; strides and padding allow 1 in most
    "lenet": 28,
    "alexnet": 193,
    "vgg11": 224,
    "vgg16": 224,
    "vgg11_quarter": 224,
    "nin": 67,
    "inception_v3": 75,
    "inception_v4": 75,
    "inception_resnet_v2": 75,
    "mini_inception": 28,
    "mini_resnet": 28,
    "small_resnet": 2,
    "densenet121": 29,
    "densenet161": 29,
    "densenet169": 29,
    "densenet201": 29,
    "densenet_d2l": 29,
    "resnet50_ibn": 17,
    "narrow_ibn": 5,
    "dilated_net": 2,
    "unet": 16,
}
LIGHT = ["lenet", "nin", "mini_inception", "mini_resnet", "small_resnet", "cifar_resnet"]
LIGHT += ["densenet_d2l", "dilated_net", *(name for name in MODELS if name.startswith("narrow_"))]
EACH = [
    pytest.param(name, marks=[] if name in LIGHT else pytest.mark.slow, id=name) for name in MODELS
]


def on_meta(name, **arguments):
    with torch.device("meta"):
        return MODELS[name].build(**arguments).eval()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_the_smallest_image_gives_scores(name, in_channels):
    net, side = on_meta(name, in_channels=in_channels, num_classes=7), SMALLEST[name]
    scores = net(torch.empty(2, in_channels, side, side, device="meta"))
    pixels = (side, side) if MODELS[name].family == "segmentation" else ()
    assert scores.shape == (2, 7, *pixels)


@pytest.mark.parametrize("name", [name for name in MODELS if SMALLEST[name] > 1])
def test_one_pixel_less_is_refused_and_the_layer_named(name):
    side = SMALLEST[name] - 1
    with pytest.raises(ValueError, match=rf"^\S+ \(\w+\) got|height={side} must be"):
        trace(on_meta(name), (1, side, side))


@pytest.fixture(scope="module", params=EACH)
def built(request):
    """A network with random running statistics, and two images of its smallest size."""
    torch.manual_seed(0)
    net, side = MODELS[request.param].build(3, 7), SMALLEST[request.param]
    for norm in net.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
    return request.param, net.eval(), torch.rand(2, 3, side, side)


def assert_close(ours, theirs, tolerance=1e-4):
    """Compare with the largest score, since single scores may be near 0."""
    assert ours.isfinite().all()
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@torch.no_grad()
def test_a_batch_of_one_gives_the_scores_of_a_larger_batch(built):
    _, net, images = built
    assert_close(torch.cat([net(images[:1]), net(images[1:])]), net(images))


@torch.no_grad()
def test_channels_last_gives_the_same_scores(built):
    _, net, images = built
    scores = net(images)
    twin = copy.deepcopy(net).to(memory_format=torch.channels_last)
    assert_close(twin(images.to(memory_format=torch.channels_last)), scores)


@torch.no_grad()
def test_bfloat16_gives_the_scores_within_its_precision(built):
    _, net, images = built
    with torch.autocast("cpu", torch.bfloat16):
        scores = net(images)
    assert_close(scores.float(), net(images), tolerance=0.05)


@torch.no_grad()
def test_a_state_dict_a_copy_and_a_pickle_give_the_scores_to_the_bit(built):
    name, net, images = built
    other = MODELS[name].build(3, 7).eval()
    other.load_state_dict(net.state_dict())
    scores = net(images)
    for twin in (other, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(twin(images), scores)


@pytest.mark.slow
@torch.no_grad()
def test_an_exported_network_gives_the_same_scores(built):
    _, net, images = built
    assert_close(torch.export.export(net, (images,)).module()(images), net(images))


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(("build", "side"), [(unet, 16), (cifar_resnet, 5)])
def test_a_traced_network_gives_the_same_scores(build, side):
    settings = {"width": 4} if build is unet else {"depth": 8}
    net, images = build(**settings).eval(), torch.rand(2, 1, side, side)
    assert_close(torch.jit.trace(net, images)(images), net(images))
