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

from deeplab_jax.benchmark.networks import Contender
from deeplab_jax.errors import DeepLabError
from deeplab_jax.labels import VOID_LABEL
from deeplab_jax.parallel.chips import cores
from experiments.benchmarks.baselines import Workload

RATE, MOMENTUM = 0.01, 0.9
# PyTorch devices, by JAX platform.
DEVICES = {"cpu": "cpu", "gpu": "cuda"}


@dataclasses.dataclass(frozen=True)
class PyTorch:
    """Runs networks in PyTorch on the device that JAX uses, in memory format channels_last.

    Attributes:
      torch: the module `torch`.
      device: cpu or cuda.
      work: workload to time. If its dtype is bfloat16, PyTorch computes with autocast.
    """

    torch: ModuleType
    device: str
    work: Workload

    def placed(self, network: Any) -> Any:
        """Moves a network to the device, in memory format channels_last, and returns it."""
        return network.to(self.device, memory_format=self.torch.channels_last)

    def pixels(self, image: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> Any:
        """Normalizes images for PyTorch.

        Args:
          image: uint8 [N, H, W, 3].
          mean, std: mean and standard deviation of each channel, for pixels in 0..1.

        Returns:
          float32 [N, 3, H, W] on the device, in memory format channels_last.
        """
        pixels = ((image / 255 - mean) / std).astype(np.float32)
        channels_first = self.torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
        return channels_first.contiguous(memory_format=self.torch.channels_last)

    def forward(
        self, name: str, network: Any, logits: Callable[[Any], Any], pixels: Any
    ) -> Contender:
        """Returns a forward pass, ready to run; its result is logits [N, C, H, W].

        Args:
          name: name of the baseline.
          network: network to run; the memory of its parameters is part of the peak memory.
          logits: function that applies the network to pixels and returns logits.
          pixels: input, returned by the method `pixels`.
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
        """Returns a training step of SGD with momentum on one batch, ready to run.

        Args:
          name: name of the baseline.
          network: network to train.
          loss: function loss(pixels, cross_entropy) that returns the loss. The argument
            `cross_entropy` is itself a function: it takes logits [N, C, H, W] and returns their
            mean cross-entropy with the labels.
          batch: pixels, returned by the method `pixels`, and labels [N, H, W].
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
            # Reading the value waits until the device is done, as deeplab_jax also does.
            return value.item()

        def held() -> Iterable[Any]:
            yield from network.state_dict().values()
            yield from (p.grad for p in network.parameters() if p.grad is not None)
            for state in optimizer.state.values():
                yield from filter(self.torch.is_tensor, state.values())

        return self._contender(name, run, held)

    def size(self, network: Any, pixels: Any) -> tuple[int, float]:
        """Returns the number of parameters, and of floating-point operations of a forward pass.

        Only convolutions and matrix products are counted, with 2 operations per multiply-add.
        """
        counter = importlib.import_module("torch.utils.flop_counter").FlopCounterMode(display=False)
        network.eval()
        with self.torch.inference_mode(), counter:
            network(pixels)
        parameters = sum(parameter.numel() for parameter in network.parameters())
        return parameters, float(counter.get_total_flops())

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
        """Returns the peak memory of a run in bytes.

        Args:
          run: function that runs the program once.
          held: function that returns the tensors that are kept between runs. The peak includes the
            memory of these tensors.
        """
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
    """Returns a `PyTorch` for the device that JAX uses.

    PyTorch is set to a fixed random seed and to one thread per CPU core.

    Raises:
      DeepLabError: PyTorch is not installed, or does not support the device.
    """
    platform = jax.default_backend()
    torch = import_library("torch")
    if platform not in DEVICES or (platform == "gpu" and not torch.cuda.is_available()):
        raise DeepLabError(
            f"JAX uses {platform}, which this PyTorch does not support; set JAX_PLATFORMS=cpu, or "
            "install PyTorch with CUDA"
        )
    torch.manual_seed(0)
    torch.set_num_threads(cores())
    return PyTorch(torch, DEVICES[platform], work)


def import_library(module: str, package: str = "'deeplab_jax[peers]'") -> ModuleType:
    """Imports a module that a baseline requires, such as `torch`.

    Modules other than `torch` may import torchvision. Therefore, torchvision is imported first,
    which can require `_define_operators`.

    Args:
      module: name of the module.
      package: package that contains the module, as in `pip install`, for the error message.

    Raises:
      DeepLabError: the module, PyTorch or torchvision cannot be imported.
    """
    try:
        if module != "torch":
            _import_torchvision()
        return importlib.import_module(module)
    except ImportError as error:
        raise DeepLabError(
            f"this benchmark requires {module} ({error}); run pip install {package}"
        ) from None


def _import_torchvision() -> None:
    torch = importlib.import_module("torch")
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        _define_operators(torch)
        importlib.import_module("torchvision")


def _define_operators(torch: ModuleType) -> None:
    """Declares the compiled operators of torchvision, so that torchvision can be imported.

    The operators are missing if torchvision was built for another version of PyTorch. The networks
    and transforms of the benchmarks do not call them.
    """
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    _KEPT.append(torch.library.Library("torchvision", "DEF"))
    for operator in ("nms", "qnms"):
        _KEPT[-1].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


# Library objects of the declared operators. PyTorch removes the operators when these are deleted.
_KEPT: list[Any] = []
