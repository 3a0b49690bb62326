"""What a graph tells beyond the names and shapes of its arrays."""

from collections.abc import Mapping
from typing import Any

from deeplab_jax.backbones import find_backbone
from deeplab_jax.models.architecture import scaled_rates
from deeplab_jax.pretrained.published import GraphFacts, PublishedWeights

# Convolutions that the encoder's map goes into; one of them is in every network.
ENCODED = ("aspp0", "meta_architecture/branch0_pointwise", "logits/semantic")


def graph_overrides(weights: PublishedWeights, backbone: str) -> Mapping[str, Any]:
    """Returns output stride, atrous rates, multi-grid and the conventions of pooling and resizing.

    Args:
      weights: of a graph, or of variables alone, which tell nothing of it.
      backbone: its name here.
    """
    facts = weights.graph
    if facts is None:
        return {}
    overrides: dict[str, Any] = {}
    if facts.align_corners is False:
        overrides["align_corners"] = False
    strides = map(facts.stride_of, ENCODED)
    stride = next((stride for stride in strides if stride is not None), None)
    if stride is None:
        return overrides
    overrides["output_stride"] = stride
    if facts.pooling_window:
        crop = tuple((length - 1) * stride + 1 for length in facts.pooling_window)
        overrides |= {"image_pooling": "crop", "pooling_crop": crop}
    return overrides | _atrous_rates(facts, stride) | _multi_grid(facts, stride, backbone)


def _atrous_rates(facts: GraphFacts, stride: int) -> Mapping[str, Any]:
    rates = []
    while scope := next((name for name in _branch(len(rates) + 1) if name in facts.rates), None):
        rates.append(facts.rates[scope][0])
    # The usual ones follow an output stride that is asked for later.
    return {} if tuple(rates) in ((), scaled_rates(stride)) else {"atrous_rates": tuple(rates)}


def _branch(number: int) -> tuple[str, str]:
    return f"aspp{number}_depthwise", f"aspp{number}"


def _multi_grid(facts: GraphFacts, stride: int, backbone: str) -> Mapping[str, Any]:
    count = find_backbone(backbone).multi_grid_size
    depth = backbone.split("_")[1]
    unit = "lite_bottleneck_v1" if depth == "18" else "bottleneck_v1"
    scopes = [
        f"resnet_v1_{depth}/block4/unit_{number}/{unit}/conv2" for number in range(1, count + 1)
    ]
    if not count or any(scope not in facts.rates for scope in scopes):
        return {}
    # Three of the five halvings lie before block4's own, and each that was lost doubles its rate.
    grid = tuple(facts.rates[scope][0] * stride // 32 for scope in scopes)
    return {"multi_grid": grid}
