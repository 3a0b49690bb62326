"""Shared parts of the PyTorch baselines: device, memory format, precision and compilation."""

import dataclasses
import importlib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.benchmark.networks import Contender
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import VOID_LABEL
from experiments.benchmarks.baselines import Workload

RATE, MOMENTUM = 0.01, 0.9
# Where JAX computes → where PyTorch is to.
DEVICES = {"cpu": "cpu", "gpu": "cuda"}


@dataclasses.dataclass(frozen=True)
class PyTorch:
    """PyTorch on the device that JAX uses, channels last.

    Attributes:
      torch: the library.
      device: cpu or cuda.
      work: dtype (bfloat16 is autocast's) and whether `torch.compile` is used.
    """

    torch: ModuleType
    device: str
    work: Workload

    def placed(self, network: Any) -> Any:
        """Returns the network on the device, channels last."""
        return network.to(self.device, memory_format=self.torch.channels_last)

    def pixels(self, image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Any:
        """Returns uint8 [N, H, W, 3] as normalised float32 [N, 3, H, W], channels last."""
        pixels = ((image / 255 - mean) / std).astype(np.float32)
        channels_first = self.torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
        return channels_first.contiguous(memory_format=self.torch.channels_last)

    def forward(
        self, name: str, network: Any, logits: Callable[[Any], Any], pixels: Any
    ) -> Contender:
        """Returns the forward pass as a contender whose runs give logits [N, C, H, W].

        Args:
          name: of the baseline.
          network: whose parameters count as memory.
          logits: of the pixels.
          pixels: of `pixels`.
        """
        network.eval()
        called = self.torch.compile(logits) if self.work.compiled else logits

        def run() -> Any:
            with self.torch.inference_mode(), self._autocast():
                result = called(pixels)
            self._wait()
            return result

        return self._contender(name, run, network.state_dict().values)

    def training_step(
        self,
        name: str,
        network: Any,
        loss: Callable[[Any, Callable[[Any], Any]], Any],
        batch: tuple[Any, np.ndarray],
    ) -> Contender:
        """Returns steps of SGD with momentum on one batch as a contender.

        Args:
          name: of the baseline.
          network: that is trained.
          loss: of the pixels and of the cross entropy, a function of logits [N, C, H, W].
          batch: pixels of `pixels`, and labels [N, H, W].
        """
        pixels, label = batch[0], self.torch.from_numpy(batch[1].astype(np.int64)).to(self.device)
        network.train()
        optimizer = self.torch.optim.SGD(network.parameters(), RATE, MOMENTUM)
        criterion = self.torch.nn.CrossEntropyLoss(ignore_index=VOID_LABEL)

        def whole(pixels: Any, label: Any) -> Any:
            return loss(pixels, lambda logits: criterion(logits, label))

        called = self.torch.compile(whole) if self.work.compiled else whole

        def run() -> float:
            optimizer.zero_grad(set_to_none=True)
            with self._autocast():
                value = called(pixels, label)
            value.backward()
            optimizer.step()
            # Reading the value waits for the device, as ours does.
            return value.item()

        def held() -> Iterable[Any]:
            yield from network.state_dict().values()
            yield from (p.grad for p in network.parameters() if p.grad is not None)
            for state in optimizer.state.values():
                yield from filter(self.torch.is_tensor, state.values())

        return self._contender(name, run, held)

    def numpy(self, logits: Any) -> np.ndarray:
        """Returns logits [N, C, H, W] as float32 [N, H, W, C]."""
        return logits.permute(0, 2, 3, 1).float().cpu().numpy()

    def _autocast(self) -> Any:
        return self.torch.autocast(
            self.device, self.torch.bfloat16, enabled=self.work.dtype == "bfloat16"
        )

    def _wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def _contender(
        self, name: str, run: Callable[[], Any], held: Callable[[], Iterable[Any]]
    ) -> Contender:
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        kind = "compiled" if self.work.compiled else "eager"
        return Contender(
            f"{name}, {kind}, channels last",
            run,
            seconds if self.work.compiled else None,
            self._peak_bytes(run, held),
        )

    def _peak_bytes(self, run: Callable[[], Any], held: Callable[[], Iterable[Any]]) -> int:
        """Returns the most memory of a run, with what is held between runs."""
        if self.device == "cuda":
            self.torch.cuda.reset_peak_memory_stats()
            run()
            return self.torch.cuda.max_memory_allocated()
        before = sum(tensor.nbytes for tensor in held())
        activities = [self.torch.profiler.ProfilerActivity.CPU]
        with self.torch.profiler.profile(activities=activities, profile_memory=True) as profile:
            run()
        events = [
            event
            for event in profile.profiler.kineto_results.events()
            if event.name() == "[memory]"
        ]
        changes = [event.nbytes() for event in sorted(events, key=lambda e: e.start_ns())]
        return before + int(np.cumsum(changes).max(initial=0))


def open_pytorch(work: Workload) -> PyTorch:
    """Returns PyTorch where JAX computes, seeded, with as many threads as there are cores.

    Raises:
      DeepLabError: it is not installed, or cannot use that device.
    """
    platform = jax.default_backend()
    torch = import_library("torch")
    if platform not in DEVICES or (platform == "gpu" and not torch.cuda.is_available()):
        raise DeepLabError(
            f"JAX computes on {platform}, this PyTorch cannot; legal: JAX_PLATFORMS=cpu, or a "
            "PyTorch with CUDA"
        )
    torch.manual_seed(0)
    torch.set_num_threads(ours.cores())
    return PyTorch(torch, DEVICES[platform], work)


def import_library(module: str, package: str = "'deeplab_jax[peers]'") -> ModuleType:
    """Imports a library that stands on PyTorch and perhaps on torchvision.

    Args:
      module: its name.
      package: what pip installs it as.

    Raises:
      DeepLabError: it is not installed.
    """
    try:
        if module != "torch":
            _import_torchvision()
        return importlib.import_module(module)
    except ImportError as error:
        raise DeepLabError(f"{error}: pip install {package}") from None


def _import_torchvision() -> None:
    torch = importlib.import_module("torch")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        _define_operators(torch)
        importlib.import_module("torchvision")


def _define_operators(torch: ModuleType) -> None:
    """Declares the compiled operators that torchvision lacks where it was built for another torch.

    The networks and transforms here use none of them.
    """
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    _KEPT.append(torch.library.Library("torchvision", "DEF"))
    for operator in ("nms", "qnms"):
        _KEPT[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


# Definitions end with the object that made them.
_KEPT: list[Any] = []
