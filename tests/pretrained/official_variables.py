"""The variables of the released TensorFlow networks, from reading the code that makes them.

Independent of deeplab_jax. Writes the lists in `variables/`, which are what the tests go by:

    python tests/pretrained/official_variables.py
"""

import pathlib
from collections.abc import Callable

FOLDER = pathlib.Path(__file__).parent / "variables"
DEEPLAB, SLIM = "research/deeplab/", "research/slim/nets/"
XCEPTION_ENTRY = {
    41: (128, 256, 728),
    65: (128, 256, 728),
    71: (128, 256, 256, 728, 728),
}
RESNET_UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
# Output channels and expansion of mobilenet_v2.V2_DEF; (kernel, expanded, output, squeeze) of V3.
V2_UNITS = [(16, 1), *[(24, 6)] * 2, *[(32, 6)] * 3, *[(64, 6)] * 4, *[(96, 6)] * 3]
V2_UNITS += [*[(160, 6)] * 3, (320, 6)]
V3_UNITS = {
    "large": [
        *((3, 16, 16, False), (3, 64, 24, False), (3, 72, 24, False)),
        *((5, 72, 40, True), (5, 120, 40, True), (5, 120, 40, True)),
        *((3, 240, 80, False), (3, 200, 80, False), (3, 184, 80, False), (3, 184, 80, False)),
        *((3, 480, 112, True), (3, 672, 112, True)),
    ],
    "small": [
        *((3, 16, 16, True), (3, 72, 24, False), (3, 88, 24, False)),
        *((5, 96, 40, True), (5, 240, 40, True), (5, 240, 40, True)),
        *((5, 120, 48, True), (5, 144, 48, True)),
    ],
}
V3_ENDS = {
    "large": ([(672, 160), (960, 160), (960, 160)], 960, 1280),
    "large_seg": ([(336, 80), (480, 80), (480, 80)], 480, 0),
    "small": ([(288, 96), (576, 96), (576, 96)], 576, 1024),
    "small_seg": ([(144, 48), (288, 48), (288, 48)], 288, 0),
}


class Variables(dict):
    """Shapes by name, filled layer by layer as slim's functions do."""

    def convolution(self, scope: str, inputs: int, outputs: int, kernel=1, norm=True) -> int:
        """slim.conv2d: without normalisation it has biases. Returns the output channels."""
        self[f"{scope}/weights"] = (kernel, kernel, inputs, outputs)
        return self._rest(scope, outputs, norm)

    def depthwise(self, scope: str, channels: int, kernel=3) -> int:
        """slim.separable_conv2d without a pointwise part."""
        self[f"{scope}/depthwise_weights"] = (kernel, kernel, channels, 1)
        return self._rest(scope, channels, True)

    def separable(self, scope: str, inputs: int, outputs: int) -> int:
        """split_separable_conv2d."""
        self.depthwise(f"{scope}_depthwise", inputs)
        return self.convolution(f"{scope}_pointwise", inputs, outputs)

    def _rest(self, scope: str, channels: int, norm: bool) -> int:
        norms = ("gamma", "beta", "moving_mean", "moving_variance")
        names = [f"BatchNorm/{name}" for name in norms] if norm else ["biases"]
        self.update({f"{scope}/{name}": (channels,) for name in names})
        return channels


def divisible(value: float, divisor: int = 8) -> int:
    """_make_divisible of slim's mobilenets."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def xception(variables: Variables, depth: int) -> dict[str, int]:
    """deeplab/core/xception.py. Returns channels of the features and of decoders' endpoints."""

    def module(block: str, inputs: int, widths: list[int], shortcut: bool) -> int:
        scope, channels = f"xception_{depth}/{block}/xception_module", inputs
        for number, width in enumerate(widths, start=1):
            channels = variables.separable(f"{scope}/separable_conv{number}", channels, width)
        if shortcut:
            variables.convolution(f"{scope}/shortcut", inputs, widths[-1])
        return channels

    entry = f"xception_{depth}/entry_flow"
    channels = variables.convolution(f"{entry}/conv1_1", 3, 32, 3)
    channels = variables.convolution(f"{entry}/conv1_2", channels, 64, 3)
    for number, width in enumerate(XCEPTION_ENTRY[depth], start=1):
        channels = module(f"entry_flow/block{number}/unit_1", channels, [width] * 3, True)
    for number in range(1, (8 if depth == 41 else 16) + 1):
        channels = module(f"middle_flow/block1/unit_{number}", channels, [728] * 3, False)
    channels = module("exit_flow/block1/unit_1", channels, [728, 1024, 1024], True)
    channels = module("exit_flow/block2/unit_1", channels, [1536, 1536, 2048], False)
    return {"output": channels, "4": 256, "8": 728}


def resnet(variables: Variables, depth: int, beta: bool) -> dict[str, int]:
    """deeplab/core/resnet_v1_beta.py; its plain form has slim's resnet_v1.py's names."""
    root, small = f"resnet_v1_{depth}", depth == 18
    unit_scope = "lite_bottleneck_v1" if small else "bottleneck_v1"
    channels = 3
    if beta:
        for number, width in enumerate((16, 16, 32) if small else (64, 64, 128), start=1):
            channels = variables.convolution(f"{root}/conv1_{number}", channels, width, 3)
    else:
        channels = variables.convolution(f"{root}/conv1", channels, 64, 7)
    for block, (count, width) in enumerate(
        zip(RESNET_UNITS[depth], (64, 128, 256, 512), strict=True), start=1
    ):
        outputs = width if small else 4 * width
        for unit in range(1, count + 1):
            scope = f"{root}/block{block}/unit_{unit}/{unit_scope}"
            if channels != outputs:
                variables.convolution(f"{scope}/shortcut", channels, outputs)
            sizes = (
                ((outputs, 3), (outputs, 3)) if small else ((width, 1), (width, 3), (outputs, 1))
            )
            for number, (features, kernel) in enumerate(sizes, start=1):
                channels = variables.convolution(
                    f"{scope}/conv{number}", channels, features, kernel
                )
    first = 64 if small else 256
    return {"output": channels, "4": first, "8": 2 * first}


def mobilenet_v2(variables: Variables, multiplier: float, divisor: int) -> dict[str, int]:
    """slim's mobilenet_v2.py up to layer_18."""
    root, endpoints = "MobilenetV2", {}
    channels = variables.convolution(f"{root}/Conv", 3, divisible(32 * multiplier, divisor), 3)
    for number, (outputs, expansion) in enumerate(V2_UNITS):
        scope = f"{root}/expanded_conv" + (f"_{number}" if number else "")
        expanded = channels
        if expansion > 1:
            expanded = divisible(channels * expansion)
            variables.convolution(f"{scope}/expand", channels, expanded)
        variables.depthwise(f"{scope}/depthwise", expanded)
        # layer_4 and layer_7 of the one-based layers.
        endpoints |= {2: {"4": expanded}, 5: {"8": expanded}}.get(number, {})
        outputs = divisible(outputs * multiplier, divisor)
        channels = variables.convolution(f"{scope}/project", expanded, outputs)
    return {"output": channels, **endpoints}


def mobilenet_v3(variables: Variables, form: str, multiplier: float = 1.0) -> dict[str, int]:
    """slim's mobilenet_v3.py; the `seg` forms as deeplab/core/feature_extractor.py changes it."""
    root, size = "MobilenetV3", form.partition("_")[0]
    ends, last, _ = V3_ENDS[form]
    rows = V3_UNITS[size] + [(5, expanded, outputs, True) for expanded, outputs in ends]
    channels, nominal = variables.convolution(f"{root}/Conv", 3, divisible(16 * multiplier), 3), 16
    endpoints = {}
    for number, (kernel, expanded, outputs, squeeze) in enumerate(rows):
        scope = f"{root}/expanded_conv" + (f"_{number}" if number else "")
        wide = divisible(channels * expanded / nominal)
        if wide > channels:
            variables.convolution(f"{scope}/expand", channels, wide)
        variables.depthwise(f"{scope}/depthwise", wide, kernel)
        # layer_7 and layer_4 of the one-based layers.
        if number == {"large": 5, "small": 2}[size]:
            endpoints["8"] = wide
        if squeeze:
            inner = divisible(wide / 4)
            variables.convolution(f"{scope}/squeeze_excite/Conv", wide, inner, norm=False)
            variables.convolution(f"{scope}/squeeze_excite/Conv_1", inner, wide, norm=False)
        nominal = outputs
        channels = variables.convolution(f"{scope}/project", wide, divisible(outputs * multiplier))
    channels = variables.convolution(f"{root}/Conv_1", channels, divisible(last * multiplier))
    return {"output": channels, **endpoints}


def aspp(
    variables: Variables, inputs: int, branches: int, separable: bool, pooling: bool = True
) -> int:
    """extract_features of deeplab/model.py."""
    if pooling:
        variables.convolution("image_pooling", inputs, 256)
    variables.convolution("aspp0", inputs, 256)
    for number in range(1, branches + 1):
        if separable:
            variables.separable(f"aspp{number}", inputs, 256)
        else:
            variables.convolution(f"aspp{number}", inputs, 256, 3)
    joined = 256 * (1 + branches + pooling)
    return variables.convolution("concat_projection", joined, 256)


def dense_prediction_cell(variables: Variables, inputs: int) -> int:
    """deeplab/core/dense_prediction_cell.py with the published cell of five branches."""
    for number, channels in enumerate((inputs, 256, 256, 256, 256)):
        variables.separable(f"meta_architecture/branch{number}", channels, 256)
    return variables.convolution("meta_architecture/concat_projection", 5 * 256, 256)


def decoder(
    variables: Variables, inputs: int, endpoints: dict[str, int], strides: str, separable: bool
) -> int:
    """refine_by_decoder of deeplab/model.py; a stage for each of the strides."""
    for stage, stride in enumerate(strides):
        suffix = f"_{stage}" if stage else ""
        variables.convolution(f"decoder/feature_projection0{suffix}", endpoints[stride], 48)
        inputs += 48
        for number in range(2):
            if separable:
                scope = f"decoder/decoder_conv{number}{suffix}"
                inputs = variables.separable(scope, inputs, 256)
            else:
                # slim.repeat opens a scope of the same name and numbers within.
                scope = f"decoder/decoder_conv0{suffix}/decoder_conv0{suffix}_{number + 1}"
                inputs = variables.convolution(scope, inputs, 256, 3)
    return inputs


def deeplab(
    backbone: Callable[[Variables], dict[str, int]],
    num_classes: int,
    branches: int = 3,
    separable: bool = True,
    strides: str = "",
    cell: bool = False,
) -> Variables:
    """A DeepLab with a backbone, ASPP or the dense prediction cell, and maybe a decoder."""
    variables = Variables()
    maps = backbone(variables)
    if cell:
        channels = dense_prediction_cell(variables, maps["output"])
    else:
        channels = aspp(variables, maps["output"], branches, separable)
    channels = decoder(variables, channels, maps, strides, separable)
    variables.convolution("logits/semantic", channels, num_classes, norm=False)
    return variables


def lite_reduced_aspp(form: str, num_classes: int) -> Variables:
    """The flags of the released MobileNetV3: a gate, sum merge, the decoder's output as logits."""
    variables = Variables()
    maps = mobilenet_v3(variables, form)
    variables.convolution("image_pooling", maps["output"], 128, norm=False)
    variables.convolution("aspp0", maps["output"], 128)
    variables.convolution("decoder/feature_projection0", maps["8"], num_classes, norm=False)
    variables.convolution("decoder/decoder_conv0", 128, num_classes, norm=False)
    return variables


def classifier(
    backbone: Callable[[Variables], dict[str, int]], scope: str, num_classes: int, wide: int = 0
) -> Variables:
    """A network for ImageNet; MobileNets have a wide layer before the scores."""
    variables = Variables()
    channels = backbone(variables)["output"]
    if wide:
        version = scope.partition("/")[0]
        norm, name = (True, "Conv_1") if version == "MobilenetV2" else (False, "Conv_2")
        channels = variables.convolution(f"{version}/{name}", channels, wide, norm=norm)
    variables.convolution(scope, channels, num_classes, norm=False)
    return variables


def vgg_16() -> Variables:
    """slim's vgg.py."""
    variables, channels = Variables(), 3
    for block, (width, count) in enumerate(
        ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1
    ):
        for number in range(1, count + 1):
            scope = f"vgg_16/conv{block}/conv{block}_{number}"
            channels = variables.convolution(scope, channels, width, 3, norm=False)
    channels = variables.convolution("vgg_16/fc6", channels, 4096, 7, norm=False)
    channels = variables.convolution("vgg_16/fc7", channels, 4096, norm=False)
    variables.convolution("vgg_16/fc8", channels, 1000, norm=False)
    return variables


def _xception(depth: int) -> Callable[[Variables], dict[str, int]]:
    return lambda variables: xception(variables, depth)


def _resnet(depth: int, beta: bool = True) -> Callable[[Variables], dict[str, int]]:
    return lambda variables: resnet(variables, depth, beta)


def _v2(multiplier: float = 1.0, divisor: int = 8) -> Callable[[Variables], dict[str, int]]:
    return lambda variables: mobilenet_v2(variables, multiplier, divisor)


def _v3(form: str, multiplier: float = 1.0) -> Callable[[Variables], dict[str, int]]:
    return lambda variables: mobilenet_v3(variables, form, multiplier)


XCEPTION_SOURCE = f"{DEEPLAB}core/xception.py"
RESNET_SOURCE = f"{DEEPLAB}core/resnet_v1_beta.py"
MOBILENET_SOURCES = tuple(f"{SLIM}mobilenet/mobilenet_{version}.py" for version in ("v2", "v3"))
MODEL = f"{DEEPLAB}model.py"
SLIM_LOGITS = "Logits/Conv2d_1c_1x1"
# Name of the list → source files, and the variables.
LISTS: dict[str, tuple[str, Callable[[], Variables]]] = {
    "deeplab_xception_65_voc": (
        f"{XCEPTION_SOURCE}, {MODEL}",
        lambda: deeplab(_xception(65), 21, strides="4"),
    ),
    "deeplab_xception_41_voc": (
        f"{XCEPTION_SOURCE}, {MODEL}",
        lambda: deeplab(_xception(41), 21, strides="4"),
    ),
    "deeplab_xception_71_dpc_cityscapes": (
        f"{XCEPTION_SOURCE}, {DEEPLAB}core/dense_prediction_cell.py, {MODEL}",
        lambda: deeplab(_xception(71), 19, strides="4", cell=True),
    ),
    "deeplab_mobilenet_v2_voc": (
        f"{MOBILENET_SOURCES[0]}, {MODEL}",
        lambda: deeplab(_v2(), 21, branches=0),
    ),
    "deeplab_mobilenet_v2_dm05_voc": (
        f"{MOBILENET_SOURCES[0]}, {MODEL}",
        lambda: deeplab(_v2(0.5, 1), 21, branches=0),
    ),
    "deeplab_mobilenet_v2_ade20k": (
        f"{MOBILENET_SOURCES[0]}, {MODEL}",
        lambda: deeplab(_v2(), 151, branches=0, strides="4"),
    ),
    "deeplab_mobilenet_v2_aspp_voc": (
        f"{MOBILENET_SOURCES[0]}, {MODEL}",
        lambda: deeplab(_v2(), 21, separable=False),
    ),
    "deeplab_mobilenet_v3_large_seg_cityscapes": (
        f"{MOBILENET_SOURCES[1]}, {DEEPLAB}core/feature_extractor.py, {MODEL}",
        lambda: lite_reduced_aspp("large_seg", 19),
    ),
    "deeplab_mobilenet_v3_small_seg_cityscapes": (
        f"{MOBILENET_SOURCES[1]}, {DEEPLAB}core/feature_extractor.py, {MODEL}",
        lambda: lite_reduced_aspp("small_seg", 19),
    ),
    "deeplab_resnet_v1_50_beta_voc": (
        f"{RESNET_SOURCE}, {MODEL}",
        lambda: deeplab(_resnet(50), 21, separable=False),
    ),
    "deeplab_resnet_v1_101_beta_decoder_voc": (
        f"{RESNET_SOURCE}, {MODEL}",
        lambda: deeplab(_resnet(101), 21, separable=False, strides="4"),
    ),
    "deeplab_resnet_v1_50_two_stages_voc": (
        f"{RESNET_SOURCE}, {MODEL}",
        lambda: deeplab(_resnet(50, beta=False), 21, strides="84"),
    ),
    "deeplab_resnet_v1_18_beta_two_stages_cityscapes": (
        f"{RESNET_SOURCE}, {MODEL}",
        lambda: deeplab(_resnet(18), 19, branches=4, separable=False, strides="84"),
    ),
    "imagenet_xception_65": (
        XCEPTION_SOURCE,
        lambda: classifier(_xception(65), "xception_65/logits", 1001),
    ),
    "imagenet_resnet_v1_50": (
        f"{SLIM}resnet_v1.py",
        lambda: classifier(_resnet(50, beta=False), "resnet_v1_50/logits", 1000),
    ),
    "imagenet_resnet_v1_101_beta": (
        RESNET_SOURCE,
        lambda: classifier(_resnet(101), "resnet_v1_101/logits", 1001),
    ),
    "imagenet_resnet_v1_18_beta": (
        RESNET_SOURCE,
        lambda: classifier(_resnet(18), "resnet_v1_18/logits", 1001),
    ),
    "imagenet_mobilenet_v2": (
        MOBILENET_SOURCES[0],
        lambda: classifier(_v2(), f"MobilenetV2/{SLIM_LOGITS}", 1001, 1280),
    ),
    "imagenet_mobilenet_v2_035": (
        MOBILENET_SOURCES[0],
        lambda: classifier(_v2(0.35), f"MobilenetV2/{SLIM_LOGITS}", 1001, 1280),
    ),
    "imagenet_mobilenet_v2_140": (
        MOBILENET_SOURCES[0],
        lambda: classifier(_v2(1.4), f"MobilenetV2/{SLIM_LOGITS}", 1001, 1792),
    ),
    "imagenet_mobilenet_v3_large": (
        MOBILENET_SOURCES[1],
        lambda: classifier(_v3("large"), f"MobilenetV3/{SLIM_LOGITS}", 1001, 1280),
    ),
    "imagenet_mobilenet_v3_small_075": (
        MOBILENET_SOURCES[1],
        lambda: classifier(_v3("small", 0.75), f"MobilenetV3/{SLIM_LOGITS}", 1001, 1024),
    ),
    "imagenet_vgg_16": (f"{SLIM}vgg.py", vgg_16),
}


def as_text(name: str) -> str:
    """Returns a list as its file has it: name, then the shape with commas."""
    source, make = LISTS[name]
    lines = [
        f"# Variables of {name}: name and shape.",
        f"# Derived from reading {source} of tensorflow/models.",
    ]
    lines += [f"{key} {','.join(map(str, shape))}" for key, shape in make().items()]
    return "\n".join(lines) + "\n"


def read(name: str) -> dict[str, tuple[int, ...]]:
    """Returns shapes by name from a list's file."""
    lines = (FOLDER / f"{name}.txt").read_text().splitlines()
    pairs = (line.split() for line in lines if not line.startswith("#"))
    return {key: tuple(map(int, shape.split(","))) for key, shape in pairs}


if __name__ == "__main__":
    for listed in LISTS:
        (FOLDER / f"{listed}.txt").write_text(as_text(listed))
