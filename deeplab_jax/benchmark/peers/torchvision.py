"""torchvision's DeepLab v3, eager, channels last, with the same weights."""

import importlib
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from deeplab_jax.benchmark import ours
from deeplab_jax.benchmark.contenders import Contender, Match, relative_difference
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import IGNORE_LABEL
from deeplab_jax.models import DeepLab
from deeplab_jax.models.preprocessing import TORCHVISION_MEAN, TORCHVISION_STD
from deeplab_jax.pretrained import convert
from deeplab_jax.training.state import Variables

PEER = "torchvision, channels last"
NUM_CLASSES = 21
RATE, MOMENTUM = 0.01, 0.9
AUXILIARY_WEIGHT = 0.5


def forward(network: str, size: tuple[int, int], batch_size: int) -> Match:
    """Returns the forward pass; see the package."""
    torch, theirs = _network(network)
    image = ours.random_batch(batch_size, size, NUM_CLASSES)["image"]
    model, variables = _converted(torch, theirs)
    pixels = _pixels(torch, image)
    theirs.eval()

    def run() -> np.ndarray:
        with torch.inference_mode():
            return theirs(pixels)["out"].permute(0, 2, 3, 1).numpy()

    mine = ours.forward(model, variables, image)
    return Match(
        f"{network}, forward, {batch_size}x{size[0]}x{size[1]}",
        mine,
        Contender(PEER, run, peak_bytes=_peak_bytes(torch, theirs, run)),
        ours.forward_operations(model, image),
        relative_difference(mine.run(), run()),
    )


def training(network: str, size: tuple[int, int], batch_size: int) -> Match:
    """Returns a training step with the auxiliary head's loss; see the package."""
    torch, theirs = _network(network)
    batch = ours.random_batch(batch_size, size, NUM_CLASSES)
    model, variables = _converted(torch, theirs)
    pixels = _pixels(torch, batch["image"])
    label = torch.from_numpy(batch["label"].astype(np.int64))
    theirs.train()
    optimizer = torch.optim.SGD(theirs.parameters(), RATE, MOMENTUM)
    criterion = torch.nn.CrossEntropyLoss(ignore_index=IGNORE_LABEL)

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        outputs = theirs(pixels)
        loss = criterion(outputs["out"], label)
        loss = loss + AUXILIARY_WEIGHT * criterion(outputs["aux"], label)
        loss.backward()
        optimizer.step()
        return loss.item()

    return Match(
        f"{network}, training step, {batch_size}x{size[0]}x{size[1]}",
        ours.training_step(model, variables, batch, RATE),
        Contender(PEER, run, peak_bytes=_peak_bytes(torch, theirs, run)),
        3 * ours.forward_operations(model, batch["image"]),
    )


def _network(name: str) -> tuple[ModuleType, Any]:
    torch, segmentation = _import()
    torch.manual_seed(0)
    torch.set_num_threads(ours.cores())
    make = getattr(segmentation, name)
    network = make(weights=None, weights_backbone=None, num_classes=NUM_CLASSES, aux_loss=True)
    return torch, network.to(memory_format=torch.channels_last)


def _import() -> tuple[ModuleType, ModuleType]:
    """Returns torch and torchvision's segmentation networks.

    Raises:
      DeepLabError: they are not installed.
    """
    try:
        torch = importlib.import_module("torch")
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            _define_operators(torch)
        return torch, importlib.import_module("torchvision.models.segmentation")
    except ImportError as error:
        raise DeepLabError(f"{error}: pip install 'deeplab_jax[peers]'") from None


def _define_operators(torch: ModuleType) -> None:
    """Declares the compiled operators that torchvision lacks where it was built for another torch.

    The networks here use none of them.
    """
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    _KEPT.append(torch.library.Library("torchvision", "DEF"))
    for operator in ("nms", "qnms"):
        _KEPT[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


# Definitions end with the object that made them.
_KEPT: list[Any] = []


def _converted(torch: ModuleType, network: Any) -> tuple[DeepLab, Variables]:
    """Returns our network with the weights of theirs."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.pth"
        torch.save(network.state_dict(), file)
        conversion = convert(file)
    return conversion.description.create_model(), conversion.variables


def _pixels(torch: ModuleType, image: np.ndarray) -> Any:
    pixels = (image / 255 - TORCHVISION_MEAN) / TORCHVISION_STD
    channels_first = torch.from_numpy(pixels.astype(np.float32)).permute(0, 3, 1, 2)
    return channels_first.contiguous(memory_format=torch.channels_last)


def _peak_bytes(torch: ModuleType, network: Any, run: Any) -> int:
    """Returns the parameters' bytes and the most that the allocator held during a run."""
    parameters = sum(tensor.nbytes for tensor in network.state_dict().values())
    run()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    events = [
        event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"
    ]
    held = np.cumsum([event.nbytes() for event in sorted(events, key=lambda e: e.start_ns())])
    return parameters + int(held.max(initial=0))
