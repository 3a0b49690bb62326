"""The compiled forward pass that prediction, evaluation and verification of exports share."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from deeplab_jax import ops
from deeplab_jax.architecture import Architecture
from deeplab_jax.inference import programs
from deeplab_jax.inference.options import InferenceOptions
from deeplab_jax.inference.padding import Size, scaled_size
from deeplab_jax.inference.programs import Forward, Images
from deeplab_jax.models import DeepLab, fold
from deeplab_jax.parallel import batch_sharding, place, put_batch, replicated, sharded_over

# Function from the class map, int32 [N, H, W], and the logits, float32 [N, H, W, num_classes], to
# arrays [N, …].
Finish = Callable[[jax.Array, jax.Array], Any]
# Function from padded images [N, H, W, C] and a scale to logits [N, h, w, num_classes] at the size
# of the scaled images.
LogitsAtScale = Callable[[Images, float], Images]

MAXIMUM, MEAN = "maximum of logits", "mean of probabilities"
# Probabilities are clipped to this minimum before their logarithm is computed.
LEAST = 1e-30


@dataclasses.dataclass(frozen=True)
class AtTemperature:
    """Function that divides logits by a temperature, and then applies another function.

    Objects of this class are passed to `forward_pass` as the argument `finish`. The class map is
    computed before the division, so it does not depend on the temperature.

    Attributes:
      finish: function to apply to the class map and the divided logits.
      temperature: divisor, above 0.
    """

    finish: Finish
    temperature: float

    def __call__(self, class_map: jax.Array, logits: jax.Array) -> Any:
        """Applies `finish` to the class map and to the logits divided by the temperature."""
        return self.finish(class_map, logits / self.temperature)


def at_temperature(finish: Finish, temperature: float) -> Finish:
    """Returns a function that applies `finish` to logits divided by a temperature."""
    return finish if temperature == 1 else AtTemperature(finish, temperature)


def _purpose(finish: Finish) -> str:
    """Returns a text that identifies `finish` in the key of a traced program stored on disk."""
    if isinstance(finish, AtTemperature):
        return f"{_purpose(finish.finish)} at temperature {finish.temperature!r}"
    return f"{finish.__module__}.{finish.__qualname__}"


def fusion_rule(architecture: Architecture) -> str:
    """Returns the rule by which the results at several scales and flips are fused.

    The rule is `MAXIMUM` (of the logits) or `MEAN` (of the class probabilities).

    DeepLab v2 takes the maximum of the logits; v3 and v3+ take the mean of the probabilities.
    Networks that sum the scores of their branches, or that apply several scales in training, are
    treated as DeepLab v2.

    Source: DeepLab v2, section 4.1.1; v3 and v3+: the authors' code.
    """
    like_v2 = architecture.fusion == "sum" or bool(architecture.multi_scale)
    return MAXIMUM if like_v2 else MEAN


@functools.lru_cache(maxsize=64)
def forward_pass(
    model: DeepLab,
    scales: tuple[float, ...],
    flip: bool,
    finish: Finish,
    mesh: Mesh | None,
) -> Forward:
    """Returns a compiled function from variables and images to the result of `finish`.

    Prediction, evaluation and verification use the same function and therefore assign the same
    class to a pixel. Outputs that `finish` ignores are not computed. Equal arguments return the
    same function.

    With scale 1 and no flip, the function is one compiled program. Otherwise, the network is
    compiled once per scale and the results are accumulated one by one. Memory therefore does not
    grow with the number of scales.

    Args:
      model: the network, at the output stride to use.
      scales, flip: scale factors of the images, and whether to also predict mirrored images.
      finish: function of the class map and the logits, both at the resolution of the images. If the
        probabilities at several scales are averaged, the logits are the logarithms of the average.
        The name of `finish` is part of the key under which the program is stored on disk.
        `finish` must therefore be a function at the top level of a module, or an `AtTemperature`
        that contains one.
      mesh: devices over which images and results are sharded; None uses one device.
    """
    out_shardings = None if mesh is None else batch_sharding(mesh)
    if scales == (1.0,) and not flip:

        def forward(variables: Any, image: jax.Array) -> Any:
            with sharded_over(mesh):
                outputs = model.apply(variables, image, method="class_map_and_logits")
            return finish(*outputs)

        compiled = jax.jit(forward, out_shardings=out_shardings)
        # A program for several devices is traced with their mesh.
        if mesh is not None:
            return compiled
        return programs.stored(compiled, model, _purpose(finish))

    network, finish_fused = one_scale(model, scales), finish_logits(finish, out_shardings)

    def forward_fused(variables: Any, image: Images) -> Any:
        def logits_at_scale(image: Images, scale: float) -> jax.Array:
            return apply_at_scale(variables, image, model=network, scale=scale, mesh=mesh)

        fused = fused_logits(model.architecture, scales, flip, image, logits_at_scale)
        return finish_fused(fused)

    return forward_fused


@functools.lru_cache(maxsize=64)
def finish_logits(finish: Finish, out_shardings: Any = None) -> Callable[[Any], Any]:
    """Returns a compiled function from logits [N, H, W, num_classes] to the result of `finish`.

    Args:
      finish: function of the class map and the logits, see `forward_pass`.
      out_shardings: sharding of the results; None: the sharding of the logits.
    """

    def finish_fused(logits: jax.Array) -> Any:
        return finish(jnp.argmax(logits, axis=-1).astype(jnp.int32), logits)

    return jax.jit(finish_fused, out_shardings=out_shardings)


class Network(Protocol):
    """Interface of the network that a predictor calls.

    It is implemented by `FoldedNetwork`, and by `EngineNetwork` for exported files.

    Attributes:
      model: Flax module of the network, at the output stride to use.
    """

    model: DeepLab

    def forward(
        self, options: InferenceOptions, finish: Finish, mesh: Mesh | None = None
    ) -> Callable[[np.ndarray], Any]:
        """Returns a function from images to the result of `finish`; see `FoldedNetwork`."""


class FoldedNetwork:
    """A network with folded batch normalization.

    The variables are copied to the devices of each mesh only once. A predictor and the predictors
    derived from it use the same object, if their output stride is the same.

    Attributes:
      model: the network; biases replace batch normalization.
      variables: variables of `model`; on the host if this object has folded them.
    """

    def __init__(self, model: DeepLab, variables: Any) -> None:
        """Folds batch normalization; variables are copied to devices at the first prediction.

        Args:
          model: the network, at the output stride to use.
          variables: variables of the model, on any devices.
        """
        self.model, self.variables = fold(model, variables)
        self._placed: dict[Mesh | None, Any] = {}

    def forward(
        self, options: InferenceOptions, finish: Finish, mesh: Mesh | None = None
    ) -> Callable[[np.ndarray], Any]:
        """Returns a compiled function from the images of this process to the result of `finish`.

        Args:
          options: scales and flip; other fields are ignored.
          finish: function of the class map and the logits, see `forward_pass`.
          mesh: devices over which images are sharded; None uses the first device of this process.
        """
        mesh = one_device_as_none(mesh)
        compiled = forward_pass(self.model, options.scales, options.flip, finish, mesh)
        return self.bind(compiled, mesh)

    def bind(self, function: Forward, mesh: Mesh | None = None) -> Callable[[np.ndarray], Any]:
        """Returns a function of images, which calls `function` with the network's variables.

        With several processes, each process calls the result with its own part of the batch.

        Args:
          function: compiled function of variables and images.
          mesh: devices over which images are sharded; None uses the first device of this process.
        """
        mesh = one_device_as_none(mesh)

        def call(images: np.ndarray) -> Any:
            placed = images if mesh is None else put_batch({"image": images}, mesh)["image"]
            return function(self._on(mesh), placed)

        return call

    def _on(self, mesh: Mesh | None) -> Any:
        if mesh not in self._placed:
            self._placed[mesh] = (
                jax.device_put(self.variables)
                if mesh is None
                else place(self.variables, replicated(mesh))
            )
        return self._placed[mesh]


def one_device_as_none(mesh: Mesh | None) -> Mesh | None:
    """Returns None if a mesh contains only the first device of this process, else the mesh."""
    if mesh is not None and mesh.size == 1 and mesh.devices.flat[0] == jax.local_devices()[0]:
        return None
    return mesh


def only_logits(class_map: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the logits; for use as the argument `finish` of `forward_pass`."""
    del class_map
    return logits


def only_class_map(class_map: jax.Array, logits: jax.Array) -> jax.Array:
    """Returns the class map; for use as the argument `finish` of `forward_pass`."""
    del logits
    return class_map


def fused_logits(
    architecture: Architecture,
    scales: tuple[float, ...],
    flip: bool,
    image: Images,
    logits_at_scale: LogitsAtScale,
) -> jax.Array:
    """Returns the logits fused over all scales and flips.

    Args:
      architecture: architecture of the network.
      scales, flip: scale factors of the images, and whether to also predict mirrored images.
      image: padded images, [N, H, W, C].
      logits_at_scale: function from images and a scale to logits. It resizes the images by the
        scale, and applies the network that `one_scale` returns.

    Returns:
      float32 [N, H, W, num_classes].

    Raises:
      ValueError: `scales` is empty.
    """
    rule = fusion_rule(architecture)
    flips = (False, True) if flip else (False,)
    members = [(scale, mirrored) for scale in scales for mirrored in flips]
    if len(members) == 1:
        rule = MAXIMUM
    total = None
    for scale, mirrored in members:
        logits = logits_at_scale(mirror(image) if mirrored else image, scale)
        adding = {"align_corners": architecture.align_corners, "rule": rule}
        total = _add(total, logits, size=image.shape[1:3], mirrored=mirrored, **adding)
    if total is None:
        raise ValueError("scales is empty; give at least one scale, as in (1.0,)")
    return total if rule == MAXIMUM else _logarithm_of_mean(total, len(members))


def one_scale(model: DeepLab, scales: tuple[float, ...]) -> DeepLab:
    """Returns the network to apply at each of the scales of inference.

    Networks such as DeepLab v2 can apply several scales internally (`multi_scale`). If the scales
    of inference are (1,), the model is returned unchanged. Other scales of inference replace the
    internal scales, so the result has `multi_scale=()`.
    """
    if scales == (1.0,) or not model.architecture.multi_scale:
        return model
    return model.clone(architecture=dataclasses.replace(model.architecture, multi_scale=()))


def image_at_scale(model: DeepLab, image: jax.Array, scale: float) -> jax.Array:
    """Returns images [N, H, W, C] resized by a scale, as float32; unchanged at scale 1."""
    if scale == 1:
        return image
    size = scaled_size(model, (image.shape[1], image.shape[2]), scale)
    return ops.resize_bilinear(
        image.astype(jnp.float32), size, align_corners=model.architecture.align_corners
    )


mirror = jax.jit(lambda image: image[:, :, ::-1])


# The program is compiled once per model and scale, and used by predictors with different options.
@functools.partial(jax.jit, static_argnames=("model", "scale", "mesh"))
def apply_at_scale(
    variables: Any, image: jax.Array, *, model: DeepLab, scale: float, mesh: Mesh | None
) -> jax.Array:
    """Resizes images [N, H, W, C] by a scale to (h, w); returns logits [N, h, w, num_classes]."""
    image = image_at_scale(model, image, scale)
    with sharded_over(mesh):
        return model.apply(variables, image, train=False)


@functools.partial(
    jax.jit, static_argnames=("size", "mirrored", "align_corners", "rule"), donate_argnums=0
)
def _add(
    total: jax.Array | None,
    logits: jax.Array,
    *,
    size: Size,
    mirrored: bool,
    align_corners: bool,
    rule: str,
) -> jax.Array:
    """Returns `total`, updated with the logits at one scale and flip.

    The logits are flipped back if `mirrored` is True, and resized to `size`. Depending on `rule`,
    `total` is the maximum of all logits or the sum of all probabilities so far; None at the start.
    """
    upright = logits[:, :, ::-1] if mirrored else logits
    full = ops.resize_bilinear(upright, size, align_corners=align_corners)
    if rule == MAXIMUM:
        return full if total is None else jnp.maximum(total, full)
    probabilities = jax.nn.softmax(full, axis=-1)
    return probabilities if total is None else total + probabilities


@functools.partial(jax.jit, static_argnames="count")
def _logarithm_of_mean(total: jax.Array, count: int) -> jax.Array:
    return jnp.log(jnp.maximum(total / count, LEAST))
