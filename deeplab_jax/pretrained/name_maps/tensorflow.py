"""Names of the released DeepLab and slim networks: checkpoints, and graphs made from them."""

from collections.abc import Mapping, Sequence
from typing import Any

from deeplab_jax.pretrained.name_maps.convention import Convention, Identified
from deeplab_jax.pretrained.name_maps.rules import Rule
from deeplab_jax.pretrained.published import PublishedWeights

LEAVES = {
    "kernel": ("{convolution}/weights", "{convolution}/depthwise_weights"),
    "bias": ("{convolution}/biases",),
    "scale": ("{norm}/gamma",),
    "offset": ("{norm}/beta",),
    "mean": ("{norm}/moving_mean",),
    "var": ("{norm}/moving_variance",),
}
IGNORED = {
    r"/(Momentum|Adam|Adam_1|RMSProp|RMSProp_1)$": "it belongs to the optimiser",
    r"/ExponentialMovingAverage$": "it is an average of a variable that was taken itself",
    r"^global_step$": "it counts training steps",
}

MOBILENET_V2 = (
    Rule("backbone/layer_1", "MobilenetV2/Conv"),
    Rule("backbone/layer_2/{part}", "MobilenetV2/expanded_conv/{part}"),
    Rule("backbone/layer_{n}/{part}", "MobilenetV2/expanded_conv_{n-2}/{part}"),
)
HEADS = (
    Rule("{head}/image_pooling/conv", "image_pooling"),
    Rule("{head}/pointwise", "aspp0"),
    Rule("{head}/projection", "concat_projection"),
    Rule("classifier", "logits/semantic"),
)


def identify(weights: PublishedWeights) -> Identified | None:
    """Tells a released network by its scopes and shapes; None if it is none."""
    kernel = weights.arrays.get("MobilenetV2/Conv/weights")
    if kernel is None:
        return None
    overrides: dict[str, Any] = {
        "backbone": "mobilenet_v2",
        "depth_multiplier": kernel.shape[-1] / 32,
        "num_classes": weights.arrays["logits/semantic/weights"].shape[-1],
    }
    return Identified("deeplab_v3", overrides | graph_overrides(weights))


def graph_overrides(weights: PublishedWeights) -> Mapping[str, Any]:
    """Returns what a graph tells beyond its arrays: output stride, crop of the image pooling."""
    facts = weights.graph
    if facts is None or facts.image_size is None:
        return {}
    overrides: dict[str, Any] = {}
    if "concat_projection" in facts.map_sizes:
        height = facts.map_sizes["concat_projection"][0]
        overrides["output_stride"] = round(facts.image_size[0] / height)
    if facts.pooling_window:
        overrides |= {"image_pooling": "crop", "pooling_crop": facts.image_size}
    return overrides


def rules(identified: Identified) -> Sequence[Rule]:
    """Returns the name map of a released network."""
    return (*MOBILENET_V2, *HEADS)


TENSORFLOW = Convention(
    name="the released TensorFlow code",
    identify=identify,
    rules=rules,
    leaves=LEAVES,
    norm="{convolution}/BatchNorm",
    ignored=IGNORED,
)
