"""Every field of a training run, with its unit and source, and how configs are read and changed.

A file in `configs/` starts from `default()` and says only what differs.
"""

import ast
import difflib
import importlib.resources
import importlib.util
import json
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from deeplab_jax.errors import DeepLabError, unknown_name
from deeplab_jax.formats import (
    FORMAT_FIELD,
    check_format_version,
    is_old_name,
    unknown_field,
    with_new_names,
)


def default() -> ConfigDict:
    """Returns the default of every field, locked: an unknown field is an error."""
    config = ConfigDict()
    config.seed = 0  # Of initialisation, data order, augmentation and dropout.
    config.model = _model()
    config.data = _data()
    config.augmentation = _augmentation()
    config.strict_crop = False  # A crop that is not k·output_stride + 1 is an error.
    config.training = _training()
    config.parallel = _parallel()
    config.loss = _loss()
    config.optimizer = _optimizer()
    config.schedule = _schedule()
    config.evaluation = _evaluation()
    config.checkpoint = _checkpoint()
    config.log_every_steps = 50  # Between lines of metrics.jsonl and TensorBoard.
    return config.lock()


def _model() -> ConfigDict:
    # Keywords of `create_model`; unset ones take the architecture's or the backbone's default.
    model = ConfigDict()
    model.architecture = "deeplab_v3plus"  # A name that `deeplab-jax models` lists.
    model.backbone = placeholder(str)
    model.output_stride = placeholder(int)  # Pixels of the image to one of the encoder's map.
    model.head = placeholder(str)
    model.fusion = placeholder(str)  # Of ASPP's branches.
    model.fov = placeholder(str)  # Kernel of fc6.
    model.fc_channels = placeholder(int)  # Of fc6 and fc7.
    model.atrous_rates = placeholder(tuple)  # Pixels of the encoder's map.
    model.aspp = placeholder(str)  # Short for DeepLab v2's atrous_rates.
    model.multi_grid = placeholder(tuple)  # Relative rates of block4's units.
    model.cascade_blocks = placeholder(int)  # The last block, 4 to 7.
    model.image_pooling = placeholder(str)
    model.pooling_crop = placeholder(tuple)  # Pixels; unset: the training crop.
    model.aspp_channels = placeholder(int)
    model.dropout_rate = placeholder(float)  # Share of features dropped, 0..1.
    model.decoder = placeholder(str)
    model.low_level_channels = placeholder(int)
    model.decoder_convs = placeholder(tuple)  # (kernel size, channels) of each.
    model.separable = placeholder(bool)
    model.refine = placeholder(bool)  # A 3×3 convolution before the classifier.
    model.multi_scale = placeholder(tuple)  # Relative sizes, fused by the maximum of scores.
    model.depth_multiplier = placeholder(float)  # Scales a MobileNet's widths.
    model.width_divisor = placeholder(int)  # Of MobileNetV2's scaled widths: 1, or 8 as in slim.
    model.aux_head = placeholder(bool)  # A second classifier, for training alone.
    model.stride_placement = placeholder(str)  # Of ResNets: slim, caffe, torchvision.
    model.align_corners = placeholder(bool)
    model.preprocessing = placeholder(str)
    model.batch_norm_decay = placeholder(float)  # Kept share a step; published: 0.95 to 0.9997.
    model.batch_norm_epsilon = placeholder(float)  # Unset: the backbone's own.
    model.frozen_batch_norm = placeholder(bool)  # Training keeps the moving averages.
    model.ghost_batch_size = placeholder(int)  # Images normalised together; unset or 0: all.
    model.widths = placeholder(tuple)  # (path, channels) of pruned layers.
    model.dtype = "float32"  # Of the computation; bfloat16 on TPUs and recent GPUs.
    return model


def _data() -> ConfigDict:
    data = ConfigDict()
    data.name = ""  # Of a prepared data set.
    data.data_dir = "data"  # Where `prepare` put it.
    data.train_split = "train"
    data.validation_split = "val"
    data.class_names = placeholder(tuple)  # For data sets that do not tell theirs.
    # Classes whose images come twice in training. DeepLab v3, section 4.3.
    data.oversample_classes = placeholder(tuple)
    data.workers = 0  # Processes that decode and augment; 0: threads of this one.
    return data


def _augmentation() -> ConfigDict:
    # Order and values of the released code: resize, scale, pad with the mean pixel, crop, flip.
    augmentation = ConfigDict()
    # Before all else the shorter side becomes min_resize, or less so that the longer one is at most
    # max_resize; pixels, 0: no limit. Released code, for ADE20K.
    augmentation.min_resize = 0
    augmentation.max_resize = 0
    augmentation.resize_factor = 0  # Sides are then rounded up to k·resize_factor + 1; 0: any.
    augmentation.crop_size = (513, 513)  # Height and width in pixels; k·output_stride + 1.
    augmentation.min_scale = 0.5  # DeepLab v3, section 4.
    augmentation.max_scale = 2.0
    augmentation.scale_step = 0.25  # 0: continuous. Released code: 0.25.
    # A crop of which one class fills this share or more is drawn again, up to ten times; 1: never.
    # mmsegmentation: 0.75.
    augmentation.max_class_fraction = 1.0
    augmentation.flip = True  # Left-right with probability ½.
    augmentation.rotation = 0.0  # Degrees to either side; 0: off.
    augmentation.photometric = 0.0  # Strength of the colour distortion, 0..1; 0: off.
    return augmentation


def _training() -> ConfigDict:
    training = ConfigDict()
    training.num_steps = 30_000  # Updates. DeepLab v3, section 4.
    training.batch_size = 16  # Images an update, over all devices. DeepLab v3, section 4.
    training.accumulation_steps = 1  # Parts a batch is worked through in, to save memory.
    training.ema_decay = 0.0  # Of the averaged parameters that evaluation uses; 0: none kept.
    training.patience = 0  # Evaluations without a better one before it stops; 0: never early.
    # What the backward pass computes anew, to save memory: `none`, `norm` (and activations)
    # or `block` (of the backbone, all but what goes from one to the next). arXiv 1604.06174.
    training.remat = "none"
    training.init_from = ""  # Published name, model directory or workdir to start from.
    # Of it: `all` but another's classifier; `backbone`; `matching`, what fits; `vgg_decimated`,
    # with fc6 and fc7 cut out of VGG-16's (DeepLab v1, section 3.2).
    training.init_scope = "all"
    return training


def _parallel() -> ConfigDict:
    # How devices share the work: data × space of them.
    parallel = ConfigDict()
    parallel.data = -1  # Devices (or groups of `space`) that share a batch; -1: all there are.
    parallel.spatial = (
        1  # Devices that share the rows of an image; for crops that fit no single one.
    )
    parallel.fsdp = False  # Kernels and optimiser state are split over `data`. arXiv 1910.02054.
    return parallel


def _loss() -> ConfigDict:
    # A weighted sum; deeplab_jax/losses has each term's formula and source.
    loss = ConfigDict()
    loss.cross_entropy = 1.0
    loss.focal = 0.0  # arXiv 1708.02002.
    loss.dice = 0.0
    loss.lovasz = 0.0  # arXiv 1705.08790.
    loss.class_weights = placeholder(tuple)  # Of the cross-entropy, one a class; unset: all 1.
    loss.label_smoothing = 0.0  # Of the cross-entropy, 0..1.
    loss.focal_gamma = 2.0
    loss.hard_pixel_fraction = 1.0  # Of the pixels, the hardest, that cross-entropy sees; 0..1.
    loss.hard_pixel_anneal_steps = 0  # At which that share is reached, from 1 at the start.
    # True: logits are upsampled to the label (DeepLab v3, section 4.1); False: the label is
    # downsampled to the logits (v1, v2).
    loss.upsample_logits = True
    # Rows of the label whose logits are made at once, to save memory; 0: all. For cross-entropy
    # alone, with upsample_logits.
    loss.chunk_rows = 0
    # `pixels`: the mean over the batch's known pixels (v3); `images`: the mean of the images' own
    # means, as Caffe's batches of one image gave (v2 on ResNet-101).
    loss.normalization = "pixels"
    loss.supervise_all_scales = (
        False  # The loss of each scale beside the fused one's. DeepLab v2, released.
    )
    loss.auxiliary_weight = 0.5  # Of the loss of an auxiliary head. torchvision.
    loss.l1 = 0.0  # Times the sum of the convolution kernels' absolute values.
    return loss


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.name = "sgd"  # `sgd` (with momentum), `adam`, `adamw`, `lars` or `lamb`.
    optimizer.momentum = 0.9  # Of sgd; of Adam's first moment.
    optimizer.weight_decay = 4e-5  # Of convolution kernels; see make_optimizer. Released code.
    optimizer.decay_depthwise = False  # Released code leaves depthwise kernels undecayed.
    optimizer.nesterov = False  # Of sgd.
    optimizer.clip_norm = 0.0  # The longest gradient over all parameters; 0: any length.

    # Of the learning rate, by part; 0 leaves a part as it is. DeepLab v2 as released: classifier
    # 10, bias 2 on top; on ResNet-101 norm 0.
    multipliers = optimizer.multipliers = ConfigDict()
    multipliers.backbone = 1.0
    multipliers.head = 1.0  # All between backbone, decoder and classifiers.
    multipliers.decoder = 1.0
    multipliers.classifier = 1.0  # Also those that lie in a head, such as the branches' of v2.
    multipliers.auxiliary = 1.0  # The auxiliary head.
    multipliers.bias = 1.0  # Of convolutions, on top of their part's.
    multipliers.norm = 1.0  # Scales and offsets of normalisations, on top of their part's.
    return optimizer


def _schedule() -> ConfigDict:
    schedule = ConfigDict()
    schedule.base_learning_rate = 0.007  # DeepLab v3, section 4.
    schedule.name = "poly"  # `poly`, `step`, `cosine` or `constant`.
    schedule.power = 0.9  # Of `poly`: (1 − step/num_steps)^power. DeepLab v2, section 4.1.1.
    schedule.steps_per_drop = 2000  # Of `step`. DeepLab v1, section 4.1.
    schedule.drop_factor = 0.1  # Of `step`: what each drop multiplies the rate by.
    # Number of first steps in which the rate rises linearly: step t (from 0) has the fraction
    # (t + 1)/warmup_steps of its scheduled rate, so the first step has base/warmup_steps and no
    # step a rate of 0. 0: no warm-up.
    schedule.warmup_steps = 0
    return schedule


def _evaluation() -> ConfigDict:
    evaluation = ConfigDict()
    evaluation.every_steps = 1000  # Also after the last step.
    evaluation.batch_size = 8  # Images; does not change the numbers.
    # (H, W) in pixels that all images are padded to, as the released code does; unset: each image
    # is padded to a size that follows from its own, as `predict` pads it.
    evaluation.size = placeholder(tuple)
    evaluation.limit = placeholder(int)  # Images; unset: the whole split.
    return evaluation


def _checkpoint() -> ConfigDict:
    checkpoint = ConfigDict()
    checkpoint.every_steps = 1000  # The best by validation and the last are kept.
    return checkpoint


# Fields that may differ when a run is taken up again: they change where and how, not what.
FREE_FIELDS = (
    "data.data_dir",
    "data.workers",
    "parallel.data",
    "parallel.spatial",
    "parallel.fsdp",
    "training.remat",
    "log_every_steps",
    "checkpoint.every_steps",
    "evaluation.batch_size",
)


def arguments(text: str | None, **defaults: Any) -> ConfigDict:
    """Returns the arguments behind the colon of `--config=FILE:key=value,flag`.

    Args:
      text: what stands behind the colon, or None.
      **defaults: the legal arguments; a value has its default's type, `flag` alone means True.

    Raises:
      DeepLabError: an argument is unknown or of the wrong type.
    """
    values = ConfigDict(defaults)
    for item in filter(None, (text or "").split(",")):
        key, _, value = item.partition("=")
        if key not in defaults:
            raise unknown_name("config argument", key, defaults)
        values[key] = _parse(key, value or "True", type(defaults[key]))
    return values


def load(reference: str) -> ConfigDict:
    """Returns the config of `FILE[:arguments]`, FILE a path or the name of a packaged one.

    Raises:
      DeepLabError: there is no such file, or it sets a field that does not exist.
    """
    name, _, text = reference.partition(":")
    path = _find(name)
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise DeepLabError("it has no function get_config, so it is no config")
        return module.get_config(text or None)
    except DeepLabError as error:
        raise DeepLabError(f"{path}: {error}") from None
    except (AttributeError, KeyError) as error:
        unknown = _unknown_field(error)
        if unknown is None:
            raise
        fields = [field for field, _ in flatten(default())]
        sections = {field.rpartition(".")[0] for field in fields} - {""}
        fields += sorted(sections)
        name = unknown if is_old_name(unknown) else _nearest_field(unknown, fields)
        raise DeepLabError(f"{path}: {unknown_field('config field', name, fields)}") from None
    except (SyntaxError, TypeError) as error:
        raise DeepLabError(f"{path}: {error}") from error


def _unknown_field(error: AttributeError | KeyError) -> str | None:
    """Returns the field that ml_collections misses; None if it is another's error."""
    # It wraps the KeyError of a missing attribute; one that cannot be added it calls a "Key".
    wrapped = any(isinstance(argument, KeyError) for argument in error.args)
    if not wrapped and "does not exist" not in str(error):
        return None
    return re.match(r"""\W*(?:Key "|)(\w*)""", str(error))[1]


def _nearest_field(name: str, fields: list[str]) -> str:
    """Returns the name with the section of the field whose own name is nearest, if one is."""
    sections = {field.rpartition(".")[2]: field.rpartition(".")[0] for field in fields}
    nearest = difflib.get_close_matches(name, sections, n=1)
    return f"{sections[nearest[0]]}.{name}" if nearest and sections[nearest[0]] else name


def _find(name: str) -> pathlib.Path:
    path = pathlib.Path(name)
    if path.is_file():
        return path
    packaged = _packaged_recipes()
    names = sorted(p.stem for p in packaged.glob("[!_]*.py"))
    if path.suffix == ".py" and path.parent != pathlib.Path("configs"):
        raise DeepLabError(f"no config file {name}; packaged configs: {', '.join(names)}")
    if path.stem not in names:
        raise unknown_name("config", path.stem, names)
    return packaged / f"{path.stem}.py"


def _packaged_recipes() -> pathlib.Path:
    try:
        return pathlib.Path(str(importlib.resources.files("deeplab_jax.configs")))
    except ModuleNotFoundError:
        package = pathlib.Path(__file__).parent
        raise DeepLabError(
            f"the recipes come with the installed package, and that in {package} is only on "
            "Python's path; run pip install -e . in its checkout"
        ) from None


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every field's dotted name and value."""
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets a field by its dotted name from text, as `--config.FIELD=TEXT` does.

    Raises:
      DeepLabError: no such field (names the nearest), or the text is not of its type.
    """
    fields = dict(flatten(config))
    if field not in fields:
        raise unknown_field("config field", field, fields)
    owner, _, name = field.rpartition(".")
    section = config[owner] if owner else config
    # Unset by default: it may be unset again.
    if text == "None" and dict(flatten(default())).get(field, "") is None:
        value = None
    else:
        value = _parse(field, text, section.get_type(name))
    with section.ignore_type():
        section[name] = value


def _parse(field: str, text: str, kind: type) -> Any:
    """Returns text as a value of the field's type."""
    if kind is str:
        return text
    try:
        value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        value = text
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if kind is tuple and isinstance(value, int | float | list):
        value = tuple(value) if isinstance(value, list) else (value,)
    if type(value) is not kind:
        raise DeepLabError(f"config field {field} takes a {kind.__name__}, got {text!r}")
    return value


def to_json(config: ConfigDict) -> str:
    """Returns the config as indented JSON, the same text for the same values."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """Returns the config of a workdir's file; fields that it lacks keep their defaults.

    The format version beside them decides the names of the fields and is left out.

    Raises:
      DeepLabError: it has a field that this release does not know, or a later release wrote it.
    """
    config = default()
    known = dict(flatten(config))
    fields = dict(flatten(json.loads(text)))
    version = check_format_version(fields.pop(FORMAT_FIELD, 1))
    for field, value in with_new_names(fields, version).items():
        if field not in known:
            raise unknown_name("config field", field, known)
        owner, _, name = field.rpartition(".")
        section = config[owner] if owner else config
        with section.ignore_type():
            section[name] = _tuples(value)
    return config


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def differences(one: ConfigDict, other: ConfigDict) -> list[str]:
    """Returns "field: a → b" for every field that decides results and differs."""
    first, second = dict(flatten(one)), dict(flatten(other))
    return [
        f"{field}: {first.get(field)} → {second.get(field)}"
        for field in sorted(first | second)
        if field not in FREE_FIELDS and _tuples_of(first, field) != _tuples_of(second, field)
    ]


def _tuples_of(fields: Mapping[str, Any], field: str) -> Any:
    value = fields.get(field)
    return _tuples(list(value)) if isinstance(value, list | tuple) else value
