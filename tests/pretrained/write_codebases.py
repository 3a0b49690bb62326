"""Writes names, shapes and logits of networks of other DeepLab codebases, by running their code.

    python tests/pretrained/write_codebases.py NETWORK … [--source=DIR]

NETWORK is a key of `codebases.NETWORKS`. segmentation_models.pytorch (0.6.0) and mmsegmentation
(1.2.2, with mmcv-lite 2.1.0) must be installed; of the others, DIR is a checkout:
VainF/DeepLabV3Plus-Pytorch at 48f990b258, jfzhang95/pytorch-deeplab-xception at 9135e104a7.
"""

import argparse
import functools
import importlib.machinery
import json
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import torch
from codebases import CLASSES, LISTINGS, LOGITS, NETWORKS, NORM, at_pixels, draw
from peers import images, mean_std

BATCH_NORM = {"type": "BN", "requires_grad": True}


def segmentation_models(kind: str, encoder: str) -> torch.nn.Module:
    """Builds a network of segmentation_models.pytorch."""
    import segmentation_models_pytorch

    make = getattr(segmentation_models_pytorch, kind)
    return make(encoder, encoder_weights=None, classes=CLASSES)


def vainf(name: str, output_stride: int = 16, separable: bool = False) -> torch.nn.Module:
    """Builds a network of VainF/DeepLabV3Plus-Pytorch."""
    import network

    make = getattr(network.modeling, name)
    model = make(num_classes=CLASSES, output_stride=output_stride, pretrained_backbone=False)
    if separable:
        network.convert_to_separable_conv(model.classifier)
    return model


def jfzhang95(backbone: str) -> torch.nn.Module:
    """Builds a network of jfzhang95/pytorch-deeplab-xception, without its ImageNet weights."""
    import torch.utils.model_zoo
    from modeling.deeplab import DeepLab

    torch.utils.model_zoo.load_url = lambda url: {}

    return DeepLab(backbone, output_stride=16, num_classes=CLASSES, sync_bn=False)


def mmsegmentation(
    backbone: str, head: dict[str, Any], auxiliary: bool = True, **settings: Any
) -> torch.nn.Module:
    """Builds the modules of a network of mmsegmentation, as its configurations do."""
    # The compiled operators are not part of mmcv-lite; DeepLab uses none.
    operators = types.ModuleType("mmcv.ops")
    operators.__spec__ = importlib.machinery.ModuleSpec("mmcv.ops", None)
    operators.__getattr__ = lambda name: None
    sys.modules.setdefault("mmcv.ops", operators)
    from mmseg.models import backbones, decode_heads
    from mmseg.models.utils import resize

    common = {"num_classes": CLASSES, "norm_cfg": BATCH_NORM, "align_corners": False}
    common["dropout_ratio"] = 0.1
    kind = "DepthwiseSeparableASPPHead" if "c1_channels" in head else "ASPPHead"
    model = torch.nn.Module()
    model.backbone = getattr(backbones, backbone)(norm_cfg=BATCH_NORM, **settings)
    model.decode_head = getattr(decode_heads, kind)(in_index=3, **common, **head)
    if auxiliary:
        fixed = {"in_index": 2, "in_channels": 1024, "channels": 256}
        options = fixed | {"num_convs": 1, "concat_input": False}
        model.auxiliary_head = decode_heads.FCNHead(**common, **options)

    def forward(image: torch.Tensor) -> torch.Tensor:
        scores = model.decode_head(model.backbone(image))
        return resize(scores, size=image.shape[2:], mode="bilinear", align_corners=False)

    model.forward = forward
    return model


RESNET = {"depth": 50, "out_indices": (0, 1, 2, 3), "contract_dilation": True}
D8 = RESNET | {"strides": (1, 2, 1, 1), "dilations": (1, 1, 2, 4)}
D16 = RESNET | {"strides": (1, 2, 2, 1), "dilations": (1, 1, 1, 2), "multi_grid": (1, 2, 4)}
MOBILENET = {
    "strides": (1, 2, 2, 1, 1, 1, 1),
    "dilations": (1, 1, 1, 2, 2, 4, 4),
    "out_indices": (1, 2, 4, 6),
}
HEAD = {"in_channels": 2048, "channels": 512, "dilations": (1, 12, 24, 36)}
PLUS = {"c1_in_channels": 256, "c1_channels": 48}
MAKERS: dict[str, Callable[[], torch.nn.Module]] = {
    "smp_v3_resnet18": functools.partial(segmentation_models, "DeepLabV3", "resnet18"),
    "smp_v3plus_resnet50": functools.partial(segmentation_models, "DeepLabV3Plus", "resnet50"),
    "smp_v3plus_mobilenet_v2": functools.partial(
        segmentation_models, "DeepLabV3Plus", "mobilenet_v2"
    ),
    "vainf_v3plus_mobilenet": functools.partial(vainf, "deeplabv3plus_mobilenet"),
    "vainf_v3_resnet50_os8": functools.partial(vainf, "deeplabv3_resnet50", 8),
    "vainf_v3plus_mobilenet_separable": functools.partial(
        vainf, "deeplabv3plus_mobilenet", separable=True
    ),
    "jfzhang95_mobilenet": functools.partial(jfzhang95, "mobilenet"),
    "jfzhang95_resnet": functools.partial(jfzhang95, "resnet"),
    "mmseg_v3_resnet50": functools.partial(mmsegmentation, "ResNetV1c", HEAD, **D8),
    "mmseg_v3plus_resnet50_d16_mg124": functools.partial(
        mmsegmentation, "ResNetV1c", HEAD | PLUS | {"dilations": (1, 6, 12, 18)}, **D16
    ),
    "mmseg_v3plus_mobilenet": functools.partial(
        mmsegmentation,
        "MobileNetV2",
        {**HEAD, "in_channels": 320, "channels": 64, "c1_in_channels": 24, "c1_channels": 12},
        auxiliary=False,
        **MOBILENET,
    ),
}


def lines(name: str, model: torch.nn.Module) -> Iterator[str]:
    """Yields the lines of the listing of a network."""
    yield f"# State dict of {name}: names and shapes. `norm` stands for a BatchNorm2d."
    yield f"# Written by python tests/pretrained/write_codebases.py {name}"
    shapes = {key: ",".join(map(str, value.shape)) for key, value in model.state_dict().items()}
    norms = {key.removesuffix(".running_mean") for key in shapes if key.endswith("running_mean")}
    for key, shape in shapes.items():
        scope, _, leaf = key.rpartition(".")
        if scope not in norms:
            yield f"{key} {shape}"
        elif leaf == NORM[0]:
            yield f"{scope} norm {shape}"


def record(name: str, model: torch.nn.Module) -> dict[str, list[list[float]]]:
    """Returns the logits of a network with the variables of `draw`, by size of the image."""
    drawn = set()
    with torch.no_grad():
        for key, values in model.state_dict().items():
            # Some arrays have two names, of which the first counts.
            if values.dtype.is_floating_point and values.data_ptr() not in drawn:
                drawn.add(values.data_ptr())
                values.copy_(torch.from_numpy(draw(key, tuple(values.shape))))
        model.eval()
        found = {}
        for size in NETWORKS[name].sizes:
            logits = model(mean_std(images(size)))[0].permute(1, 2, 0).numpy()
            values = at_pixels(logits).tolist()
            found["x".join(map(str, size))] = [[float(f"{v:.7g}") for v in row] for row in values]
    return found


def main() -> None:
    """Writes the listing and the logits of each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", choices=list(NETWORKS))
    parser.add_argument("--source", help="checkout of the codebase")
    arguments = parser.parse_args()
    if arguments.source:
        sys.path.insert(0, arguments.source)
    for name in arguments.networks:
        model = MAKERS[name]()
        LISTINGS.mkdir(exist_ok=True)
        (LISTINGS / f"{name}.txt").write_text("\n".join(lines(name, model)) + "\n")
        recorded = json.loads(LOGITS.read_text()) if LOGITS.exists() else {}
        recorded[name] = record(name, model)
        rows = (f'"{key}": {json.dumps(recorded[key])}' for key in sorted(recorded))
        LOGITS.write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main()
