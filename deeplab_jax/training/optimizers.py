"""Builds optimizers and learning-rate schedules from a config."""

import re
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError
from deeplab_jax.losses import dense_kernels, kernels


def poly_schedule(
    base_learning_rate: float, num_steps: int, power: float = 0.9, warmup_steps: int = 0
) -> optax.Schedule:
    """Returns a polynomial schedule.

    The learning rate of step t is base_learning_rate·(1 − t/num_steps)^power before step
    `num_steps`, and 0 from that step on.

    Args:
      base_learning_rate: learning rate at step 0, before the warm-up factor.
      num_steps: number of training steps.
      power: exponent.
      warmup_steps: number of steps of linear warm-up, see `with_warmup`; 0: no warm-up.

    Source: DeepLab v2, section 4.1.1.
    """

    def learning_rate(step: jax.Array | int) -> jax.Array:
        # The subtraction uses integers. In compiled programs, optax.polynomial_schedule multiplies
        # by a rounded 1/num_steps and is NaN at the last step for many values, such as 30,000.
        left = jnp.maximum(num_steps - step, 0) / num_steps
        return base_learning_rate * left**power

    return with_warmup(learning_rate, warmup_steps)


def step_schedule(
    base_learning_rate: float,
    steps_per_drop: int = 2000,
    factor: float = 0.1,
    warmup_steps: int = 0,
) -> optax.Schedule:
    """Returns a schedule that multiplies the learning rate by a factor at regular intervals.

    The learning rate of step t is base_learning_rate·factor^⌊t/steps_per_drop⌋.

    Args:
      base_learning_rate: learning rate before the first drop.
      steps_per_drop: number of steps between two drops.
      factor: factor on the learning rate at each drop.
      warmup_steps: number of steps of linear warm-up, see `with_warmup`; 0: no warm-up.

    Source: DeepLab v1, section 4.1: ×0.1 every 2,000 steps.
    """

    def learning_rate(step: jax.Array | int) -> jax.Array:
        # The division uses integers. optax.exponential_decay can drop one step too late.
        return base_learning_rate * factor ** jnp.floor_divide(step, steps_per_drop)

    return with_warmup(learning_rate, warmup_steps)


def cosine_schedule(
    base_learning_rate: float, num_steps: int, warmup_steps: int = 0
) -> optax.Schedule:
    """Returns a cosine schedule.

    The learning rate of step t is base_learning_rate·½·(1 + cos(π·t/num_steps)) before step
    `num_steps`, and 0 from that step on.

    Args:
      base_learning_rate: learning rate at step 0, before the warm-up factor.
      num_steps: number of training steps.
      warmup_steps: number of steps of linear warm-up, see `with_warmup`; 0: no warm-up.

    Source: arXiv 1608.03983, equation 5, without restarts.
    """
    return with_warmup(optax.cosine_decay_schedule(base_learning_rate, num_steps), warmup_steps)


def with_warmup(schedule: optax.Schedule, warmup_steps: int) -> optax.Schedule:
    """Adds a linear warm-up to a schedule.

    The learning rate of step t is multiplied by the factor min((t + 1)/warmup_steps, 1). At step 0,
    the factor is 1/warmup_steps rather than 0, so the first step has an effect. From step
    warmup_steps − 1 on, the factor is 1, and the schedule is the same as without warm-up.

    Args:
      schedule: learning rate as a function of the step.
      warmup_steps: number of warm-up steps, at least 0; 0: no warm-up.

    Raises:
      DeepLabError: `warmup_steps` is negative.

    Source: arXiv 1706.02677, section 2.2 (gradual warm-up), with steps instead of epochs.
    """
    if warmup_steps < 0:
        raise DeepLabError(f"schedule.warmup_steps={warmup_steps} must be at least 0")
    if warmup_steps == 0:
        return schedule
    return lambda step: schedule(step) * jnp.minimum((step + 1) / warmup_steps, 1)


# arXiv 1708.03888, section 4.
LARS_COEFFICIENT = 0.001
PARTS = ("backbone", "head", "decoder", "classifier", "auxiliary")
# Names of classifiers inside a head: of LR-ASPP, and of the branches of DeepLab v2 on VGG-16.
SCORING = ("classifier", "low_level_classifier", "fc8")
Names = tuple[str, ...]


def make_schedule(config: ConfigDict, num_steps: int) -> optax.Schedule:
    """Returns the learning-rate schedule that a config specifies.

    Args:
      config: section `schedule` of the config; see deeplab_jax/optimization_fields.py.
      num_steps: number of training steps.

    Raises:
      DeepLabError: a field of this section is invalid.
    """
    configs.check(config, "schedule.")
    base, warmup = config.base_learning_rate, config.warmup_steps
    match config.name:
        case "poly":
            return poly_schedule(base, num_steps, config.power, warmup)
        case "step":
            return step_schedule(base, config.steps_per_drop, config.drop_factor, warmup)
        case "cosine":
            return cosine_schedule(base, num_steps, warmup)
    return with_warmup(optax.constant_schedule(base), warmup)


def decayed_parameters(params: Any, decay_depthwise: bool) -> Any:
    """Returns a tree of booleans that is True for parameters with weight decay.

    Weight decay applies to the kernels of convolutions. It applies to depthwise kernels only if
    `decay_depthwise` is set; the code of DeepLab's authors does not decay them. Biases, scales and
    offsets have no weight decay.
    """
    group = kernels if decay_depthwise else dense_kernels

    def decayed(path: tuple[jax.tree_util.DictKey, ...], _: jax.Array) -> bool:
        return group(_names(path))

    return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(
    config: ConfigDict, learning_rate: optax.Schedule
) -> optax.GradientTransformation:
    """Returns the optimizer that a config specifies.

    Let w be the parameters and wd the weight decay. `sgd`, `adam` and `lars` add wd·w to the
    gradient (L2 regularization). `adamw` and `lamb` add wd·w after Adam's scaling, so that the
    scaling does not reduce it (arXiv 1711.05101). `lars` and `lamb`, which are meant for large
    batches, also scale the update of each parameter array, so that the norm of the update is
    proportional to the norm of the array (arXiv 1708.03888, 1904.00962). `lars` scales only the
    updates of arrays with weight decay.

    Args:
      config: section `optimizer` of the config; see deeplab_jax/optimization_fields.py.
      learning_rate: learning-rate schedule.

    Raises:
      DeepLabError: a field of this section is invalid or has no effect with this optimizer.
    """
    configs.check(config, "optimizer.")
    if config.nesterov and config.name not in ("sgd", "lars"):
        raise DeepLabError(
            f"optimizer.nesterov=True has no effect with optimizer.name={config.name}; set "
            "optimizer.nesterov=False, or optimizer.name to sgd or lars"
        )
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    descent = [optax.scale_by_learning_rate(learning_rate)]
    if any(factor != 1 for factor in config.multipliers.values()):
        descent.append(scale_by_part(config.multipliers))
    if config.layer_decay != 1:
        descent.append(scale_by_layer(config.layer_decay))
    return optax.chain(*clip, *_direction(config, descent))


def _direction(
    config: ConfigDict, descent: list[optax.GradientTransformation]
) -> list[optax.GradientTransformation]:
    """Returns the gradient transformations of an optimizer, in the order of their application.

    Gradient clipping, which comes first, is not included.

    Args:
      config: section `optimizer` of the config.
      descent: transformations that multiply updates by the learning rate and its multipliers. The
        result ends with them, or in LARS with them and then momentum.
    """
    decayed = partial(decayed_parameters, decay_depthwise=config.decay_depthwise)
    decay = optax.add_decayed_weights(config.weight_decay, mask=decayed)
    momentum = optax.trace(config.momentum, nesterov=config.nesterov)
    adam = optax.scale_by_adam(b1=config.momentum)
    match config.name:
        case "sgd":
            return [decay, momentum, *descent]
        case "adam":
            return [decay, adam, *descent]
        case "adamw":
            return [adam, decay, *descent]
        case "lamb":
            return [adam, decay, optax.scale_by_trust_ratio(), *descent]
    # In LARS, the updates of parameters without weight decay are not scaled.
    trust = optax.masked(optax.scale_by_trust_ratio(trust_coefficient=LARS_COEFFICIENT), decayed)
    return [decay, trust, *descent, momentum]


def scale_by_part(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Returns a gradient transformation that applies learning-rate multipliers.

    Args:
      multipliers: multipliers of the parts `backbone`, `head`, `decoder`, `classifier` and
        `auxiliary`. The multipliers `bias` (of convolution biases) and `norm` (of normalization
        scales and offsets) are factors on the multiplier of the part to which these parameters
        belong. Classifiers inside a head, such as the branches of DeepLab v2, belong to the part
        `classifier`, not to `head`.
    """

    def scaled_updates(updates: Any, _: Any) -> Any:
        return jax.tree.map(jnp.multiply, updates, factors(updates, multipliers))

    return optax.stateless(scaled_updates)


def factors(params: Any, multipliers: Mapping[str, float]) -> Any:
    """Returns the learning-rate multiplier of each parameter, as a tree of numbers.

    Args:
      params: tree with the structure of the parameters.
      multipliers: multipliers of the parts, as in `scale_by_part`.
    """
    present = {_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}

    def factor(path: tuple[jax.tree_util.DictKey, ...], _: Any) -> float:
        return _factor(_names(path), present, multipliers)

    return jax.tree_util.tree_map_with_path(factor, params)


def scale_by_layer(decay: float) -> optax.GradientTransformation:
    """Returns a gradient transformation that decays the learning rate towards the first layers.

    With L units in the backbone, the factor of unit i (from 0) is decay^(L − i); all other parts
    have the factor 1. Units are the residual units, blocks or single convolutions of the backbone,
    see `backbone_units`.

    Args:
      decay: learning rate of a unit divided by the learning rate of the next unit, in (0, 1].

    Source: arXiv 2003.10555 (ELECTRA); for vision, arXiv 2106.08254 (BEiT).
    """

    def scaled_updates(updates: Any, _: Any) -> Any:
        paths = (_names(path) for path, _ in jax.tree_util.tree_leaves_with_path(updates))
        units = backbone_units(paths)
        factors = {unit: decay ** (len(units) - index) for index, unit in enumerate(units)}

        def scaled(path: tuple[jax.tree_util.DictKey, ...], update: jax.Array) -> jax.Array:
            return update * factors.get(_unit(_names(path)), 1)

        return jax.tree_util.tree_map_with_path(scaled, updates)

    return optax.stateless(scaled_updates)


# Positions of stages whose names do not determine the order of the computation. Other stages have
# position 0 and are ordered by the numbers in their names.
STAGE_ORDER = {"stem": -1, "entry_flow": 0, "middle_flow": 1, "exit_flow": 2}
# Beginning of the names of units that come before the blocks of a stage.
BEFORE_BLOCKS = "downsample"


def backbone_units(paths: Iterable[Names]) -> list[str]:
    """Returns the names of the units of the backbone, in the order of the computation.

    Args:
      paths: paths of all parameters, such as `("backbone", "block1/unit_1", "conv1", "kernel")`.
    """
    return sorted({_unit(path) for path in paths} - {""}, key=_unit_order)


def _unit(path: Names) -> str:
    """Returns the backbone unit that a parameter belongs to, such as `block1/unit_1`.

    For parameters outside the backbone, the result is "".
    """
    if path[0] != "backbone":
        return ""
    first, *others = path[1].split("/")
    # The convolution and the normalization of a stem or of a downsampling are one unit.
    return first if first == "stem" or not others else f"{first}/{others[0]}"


def _unit_order(unit: str) -> tuple[Any, ...]:
    stage, _, block = unit.partition("/")
    order = STAGE_ORDER.get(stage, STAGE_ORDER["stem"] if stage.startswith("stem") else 0)
    # Convolutions of the entry flow and downsampling come before the blocks.
    is_block = bool(block) and not block.startswith((BEFORE_BLOCKS, "conv"))
    return order, _natural(stage), is_block, _natural(block)


def _natural(name: str) -> list[int]:
    """Returns the numbers in a name, as a sort key that places `layer_10` after `layer_2`."""
    return [int(number) for number in re.findall(r"\d+", name)]


def _names(path: tuple[jax.tree_util.DictKey, ...]) -> Names:
    return tuple(key.key for key in path)


def _factor(names: Names, present: Collection[Names], multipliers: Mapping[str, float]) -> float:
    """Returns the learning-rate multiplier of a parameter.

    Args:
      names: path of the parameter.
      present: paths of all parameters.
      multipliers: multipliers of the parts of the network, of `bias` and of `norm`.
    """
    part = names[0] if names[0] in PARTS else "head"
    if part == "head" and _gives_scores(names[:-1], present):
        part = "classifier"
    # For example `norm`, `stem/norm`, and `response_norm` of ConvNeXt V2.
    if names[-2].endswith("norm"):
        return multipliers[part] * multipliers["norm"]
    return multipliers[part] * (multipliers["bias"] if names[-1] == "bias" else 1)


def _gives_scores(module: Names, present: Collection[Names]) -> bool:
    """Returns whether a module of the head is a classifier.

    The branches of DeepLab v2 on a ResNet are classifiers. They are recognized by their bias,
    because the branches of other versions have batch normalization instead of a bias.
    """
    bare_branch = module[-1].startswith("rate_") and (*module, "bias") in present
    return module[-1] in SCORING or bare_branch
