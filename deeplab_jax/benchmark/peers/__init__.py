"""The codes that ours is measured against, one a module, each with the networks it has.

A module offers `forward(work)` and, where the peer trains, `training(work)`; both return a `Match`
whose two sides hold the same weights where the peer's can be converted. `pytorch` is no peer, but
what those in PyTorch share; `torchvision_data` is the input pipeline's.
"""

import dataclasses
import importlib

from deeplab_jax.benchmark.contenders import Match, Workload
from deeplab_jax.errors import DeepLabError, unknown_name

# Name of the peer → the networks it has, the first by default.
PEERS = {
    "straightforward": ("v3/mobilenet_v2", "v3plus/mobilenet_v2", "v3plus/xception_65"),
    "torchvision": (
        "deeplabv3_resnet50",
        "deeplabv3_mobilenet_v3_large",
        "deeplabv3_resnet101",
    ),
    "transformers": ("mobilenet_v2",),
    "segmentation_models": ("resnet50", "resnet101", "mobilenet_v2", "tu-xception65"),
    "keras_hub": ("resnet_50",),
    "tflite": ("mobilenet_v2",),
    "without_mesh": ("mobilenet_v2", "resnet_50", "xception_65"),
}
TRAINING_PEERS = ("straightforward", "torchvision", "segmentation_models", "without_mesh")
PYTORCH_PEERS = ("torchvision", "transformers", "segmentation_models")
DTYPES = ("float32", "bfloat16")


def make_match(peer: str, work: Workload, training: bool) -> Match:
    """Returns a peer's and our version of the work, ready to run.

    Args:
      peer: its name.
      work: with an empty network for the peer's first.
      training: training steps instead of forward passes.

    Raises:
      DeepLabError: there is no such peer or network, the peer does not do that, or it is not
        installed.
    """
    if peer not in PEERS:
        raise unknown_name("peer", peer, PEERS)
    if training and peer not in TRAINING_PEERS:
        raise DeepLabError(f"{peer} is not trained here; legal: {', '.join(TRAINING_PEERS)}")
    if work.dtype not in DTYPES:
        raise unknown_name("dtype", work.dtype, DTYPES)
    if peer not in PYTORCH_PEERS and (work.compiled or work.dtype != DTYPES[0]):
        raise DeepLabError(
            f"--compiled and --dtype={DTYPES[1]} are for peers in PyTorch, which {peer} is not; "
            f"legal: {', '.join(PYTORCH_PEERS)}"
        )
    work = dataclasses.replace(work, network=work.network or PEERS[peer][0])
    if work.network not in PEERS[peer]:
        raise unknown_name(f"network of {peer}", work.network, PEERS[peer])
    module = importlib.import_module(f"{__name__}.{peer}")
    return module.training(work) if training else module.forward(work)
