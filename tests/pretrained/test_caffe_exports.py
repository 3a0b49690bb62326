"""DeepLab v1 and v2 as the papers describe them, with the names of common PyTorch exports."""

import itertools

import pytest
from pretrained.peers import (
    assert_same_logits,
    caffe_bgr,
    mean_std,
    peer,
    randomize,
)

from deeplab_jax.pretrained import convert

torch = peer("torch")
nn, functional = torch.nn, torch.nn.functional
ODD, EVEN = (65, 97), (64, 96)


def unit(names, inputs, width, outputs, stride, rate, projects):
    """A residual unit of the Caffe networks: the stride is on the first convolution.

    Args:
      names: of each convolution and its normalisation: three, and the shortcut's.
      inputs, width, outputs: channels.
      stride, rate: of the first and of the 3×3 convolution.
      projects: whether the shortcut is a convolution.
    """
    shapes = [(inputs, width, 1, stride, 1), (width, width, 3, 1, rate), (width, outputs, 1, 1, 1)]
    shapes += [(inputs, outputs, 1, stride, 1)] * projects
    module = nn.Module()
    for (conv, norm), (before, after, size, step, dilation) in zip(names, shapes, strict=False):
        pad = dilation * (size // 2)
        put(module, conv, nn.Conv2d(before, after, size, step, pad, dilation, bias=False))
        put(module, norm, nn.BatchNorm2d(after))

    def part(number, hidden):
        conv, norm = names[number]
        return module.get_submodule(norm)(module.get_submodule(conv)(hidden))

    def forward(hidden):
        shortcut = part(3, hidden) if projects else hidden
        inner = functional.relu(part(1, functional.relu(part(0, hidden))))
        return functional.relu(part(2, inner) + shortcut)

    module.forward = forward
    return module


def put(module, path, child):
    """Adds a module under a dotted name, whose last parts may be numbers."""
    *scopes, name = path.split(".")
    for scope in scopes:
        if scope not in dict(module.named_children()):
            module.add_module(scope, nn.Module())
        module = module.get_submodule(scope)
    module.add_module(name, child)


class ResNet(nn.Module):
    """DeepLab v2 on a ResNet; `names` holds the names and the alignment of one codebase."""

    def __init__(self, sizes, num_classes, names, plain=False):
        super().__init__()
        put(self, names["stem"][0], nn.Conv2d(3, 64, 7, 2, 3, bias=False))
        put(self, names["stem"][1], nn.BatchNorm2d(64))
        self.align_corners = names["align_corners"]
        self.stem, self.units, channels = names["stem"], [], 64
        for block, (count, stride, rate) in enumerate(
            zip(sizes, (1, 2, 1, 1), (1, 1, 2, 4), strict=True), start=1
        ):
            width = 32 * 2**block
            for number in range(1, count + 1):
                first, path = number == 1, names["unit"].format(*names["count"](block, number))
                put(
                    self,
                    path,
                    unit(
                        names["parts"],
                        channels,
                        width,
                        4 * width,
                        stride if first else 1,
                        rate,
                        first,
                    ),
                )
                self.units.append(path)
                channels = 4 * width
        rates = [None] if plain else (6, 12, 18, 24)
        self.branches = [
            names["plain"] if plain else names["branch"].format(n) for n in range(len(rates))
        ]
        for name, rate in zip(self.branches, rates, strict=True):
            classifier = (1, 1, 0, 1) if plain else (3, 1, rate, rate)
            put(self, name, nn.Conv2d(2048, num_classes, *classifier))

    def resize(self, maps, size):
        return functional.interpolate(maps, size, mode="bilinear", align_corners=self.align_corners)

    def forward(self, image):
        return self.resize(self.scores(image), image.shape[2:])

    def forward_at_all_scales(self, image):
        """The maximum of the scores at three scales, as in evaluation in both codebases."""
        scores = self.scores(image)
        for scale in (0.75, 0.5):
            # With aligned corners, the codebase requires sides of 8k + 1 pixels.
            size = [int(side * scale) + self.align_corners for side in image.shape[2:]]
            other = self.scores(self.resize(image, size))
            scores = torch.maximum(scores, self.resize(other, scores.shape[2:]))
        return self.resize(scores, image.shape[2:])

    def scores(self, image):
        conv, norm = map(self.get_submodule, self.stem)
        hidden = functional.relu(norm(conv(image)))
        hidden = functional.max_pool2d(hidden, 3, 2, 1, ceil_mode=True)
        for path in self.units:
            hidden = self.get_submodule(path)(hidden)
        return sum(self.get_submodule(name)(hidden) for name in self.branches)


KAZUTO = {
    "align_corners": False,
    "stem": ("layer1.conv1.conv", "layer1.conv1.bn"),
    "unit": "layer{}.block{}",
    "count": lambda block, number: (block + 1, number),
    "parts": [
        (f"{part}.conv", f"{part}.bn") for part in ("reduce", "conv3x3", "increase", "shortcut")
    ],
    "branch": "aspp.c{}",
    "plain": "fc",
}
ISHT7 = {
    "align_corners": True,
    "stem": ("conv1", "bn1"),
    "unit": "layer{}.{}",
    "count": lambda block, number: (block, number - 1),
    "parts": [
        *((f"conv{n}", f"bn{n}") for n in (1, 2, 3)),
        ("downsample.0", "downsample.1"),
    ],
    "branch": "layer5.conv2d_list.{}",
}


class VGG(nn.Module):
    """DeepLab on VGG-16 up to scores.

    Attributes:
      names: of conv1_1 to conv5_3.
      heads: names of fc6, fc7 and fc8 and fc6's rate, of each branch.
    """

    def __init__(self, num_classes, names, heads):
        super().__init__()
        self.blocks, self.heads, channels = [], heads, 3
        remaining = iter(names)
        for width, count, rate in (
            *((64, 2, 1), (128, 2, 1), (256, 3, 1)),
            *((512, 3, 1), (512, 3, 2)),
        ):
            block = list(itertools.islice(remaining, count))
            for name in block:
                put(self, name, nn.Conv2d(channels, width, 3, 1, rate, rate))
                channels = width
            self.blocks.append(block)
        for (fc6, fc7, fc8), rate in heads:
            put(self, fc6, nn.Conv2d(512, 1024, 3, 1, rate, rate))
            put(self, fc7, nn.Conv2d(1024, 1024, 1))
            put(self, fc8, nn.Conv2d(1024, num_classes, 1))

    def forward(self, image):
        hidden = image
        for number, block in enumerate(self.blocks, start=1):
            for name in block:
                hidden = functional.relu(self.get_submodule(name)(hidden))
            hidden = functional.max_pool2d(hidden, 3, 2 if number <= 3 else 1, 1)
        hidden = functional.avg_pool2d(hidden, 3, 1, 1)
        scores = sum(self._branch(hidden, *names) for names, _ in self.heads)
        return functional.interpolate(scores, image.shape[2:], mode="bilinear", align_corners=True)

    def _branch(self, hidden, fc6, fc7, fc8):
        for name in (fc6, fc7):
            hidden = functional.relu(self.get_submodule(name)(hidden))
        return self.get_submodule(fc8)(hidden)


CAFFE_NAMES = [f"conv{block}_{n}" for block in range(1, 6) for n in range(1, 3 + (block > 2))]
NUMBERED = [f"features.{n}" for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)]


def save(network, folder, prefix=""):
    arrays = {prefix + name: array for name, array in network.state_dict().items()}
    torch.save(arrays, folder / "network.pth")
    return folder / "network.pth"


@pytest.mark.parametrize(
    ("names", "sizes", "plain", "prefix", "images_of"),
    [
        (KAZUTO, (3, 4, 6, 3), False, "base.", (EVEN,)),
        pytest.param(KAZUTO, (3, 4, 23, 3), False, "base.", (EVEN,), marks=pytest.mark.slow),
        pytest.param(KAZUTO, (3, 4, 23, 3), True, "", (ODD,), marks=pytest.mark.slow),
        pytest.param(ISHT7, (3, 4, 23, 3), False, "Scale.", (ODD,), marks=pytest.mark.slow),
    ],
    ids=["kazuto1011-50", "kazuto1011", "kazuto1011-init", "isht7"],
)
def test_v2_on_a_resnet(names, sizes, plain, prefix, images_of, tmp_path):
    network = randomize(ResNet(sizes, 21, names, plain))
    source = save(network, tmp_path, prefix)
    original = network.forward_at_all_scales if prefix else network
    conversion = assert_same_logits(source, original, caffe_bgr, images_of)
    assert conversion.description.architecture == "deeplab_v2"
    assert set(conversion.assignment.unused.values()) == {"it counts training batches"}


@pytest.mark.parametrize(
    ("names", "heads", "normalize"),
    [
        (CAFFE_NAMES, ("fc6", "fc7", "fc8"), caffe_bgr),
        (NUMBERED, ("features.32", "features.35", "features.38"), caffe_bgr),
        (NUMBERED, ("classifier.1", "classifier.3", "classifier.6"), mean_std),
    ],
    ids=["caffe", "wangleihitcs", "CoinCheung"],
)
def test_v1(names, heads, normalize, tmp_path):
    network = randomize(VGG(21, names, [(heads, 12)]))
    source = save(network, tmp_path, "module.")
    conversion = assert_same_logits(source, network, normalize, (EVEN,))
    assert conversion.description.architecture == "deeplab_v1"
    assert not conversion.assignment.unused


@pytest.mark.parametrize("size", ["small", "large"])
def test_v2_on_vgg(size, tmp_path):
    rates = {"small": (2, 4, 8, 12), "large": (6, 12, 18, 24)}[size]
    heads = [(tuple(f"fc{k}_{n}" for k in (6, 7, 8)), rate) for n, rate in enumerate(rates, 1)]
    network = randomize(VGG(12, CAFFE_NAMES, heads))
    overrides = {} if size == "large" else {"aspp": size}
    assert_same_logits(
        save(network, tmp_path), network, caffe_bgr, ((33, 41),), overrides=overrides
    )


def test_deeplab_v2_converts_with_all_scales(tmp_path):
    network = randomize(ResNet((3, 4, 6, 3), 21, KAZUTO, False))
    conversion = convert(save(network, tmp_path), overrides={"multi_scale": (1, 0.75, 0.5)})
    assert conversion.description.create_model().architecture.multi_scale == (1, 0.75, 0.5)
    # The names of a network inside the multi-scale module have a prefix.
    conversion = convert(save(network, tmp_path, "module.base."))
    assert conversion.description.create_model().architecture.multi_scale == (1, 0.75, 0.5)
    only_the_original = convert(save(network, tmp_path, "base."), overrides={"multi_scale": ()})
    assert only_the_original.description.create_model().architecture.multi_scale == ()
