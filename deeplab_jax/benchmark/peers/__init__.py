"""The codes that ours is measured against, one a module, each with the networks it has.

A module offers `forward(network, size, batch_size)` and, where the peer trains,
`training(network, size, batch_size)`, size being (H, W) in pixels; both return a `Match` whose two
sides hold the same weights where the peer's can be converted.
"""

import importlib
from types import ModuleType

from deeplab_jax.errors import DeepLabError, unknown_name

# Name of the peer → the networks it has, the first by default.
PEERS = {
    "straightforward": ("v3/mobilenet_v2", "v3plus/mobilenet_v2", "v3plus/xception_65"),
    "torchvision": (
        "deeplabv3_resnet50",
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3_resnet101",
    ),
    "keras_hub": ("resnet_50",),
    "tflite": ("mobilenet_v2",),
    "without_mesh": ("mobilenet_v2", "resnet_50", "xception_65"),
}
TRAINING_PEERS = ("straightforward", "torchvision", "without_mesh")


def find_peer(name: str, network: str | None, training: bool) -> tuple[ModuleType, str]:
    """Returns the module of a peer and the name of one of its networks.

    Raises:
      DeepLabError: there is no such peer or network, or the peer does not train.
    """
    if name not in PEERS:
        raise unknown_name("peer", name, PEERS)
    if training and name not in TRAINING_PEERS:
        raise DeepLabError(f"{name} is not trained here; legal: {', '.join(TRAINING_PEERS)}")
    network = network or PEERS[name][0]
    if network not in PEERS[name]:
        raise unknown_name(f"network of {name}", network, PEERS[name])
    return importlib.import_module(f"{__name__}.{name}"), network
