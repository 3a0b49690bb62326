import pathlib

import jax
import numpy as np
import pytest
from reporters import RecordingReporter
from stand_ins import random_dataset

from deeplab_jax import config as configs
from deeplab_jax.data import ArrayDataset
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.summary import summarize
from deeplab_jax.parallel import make_mesh
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.checks import (
    batch_unit,
    check_batch,
    check_chunk_rows,
    check_classes,
    check_ghost_batch_size,
)
from deeplab_jax.training.measurements import step_flops
from deeplab_jax.training.setup import assemble

DATASET = random_dataset([(20, 24)] * 3)


def changed(*assignments):
    config = configs.default()
    for assignment in ("model.backbone=mobilenet_v2", "augmentation.crop_size=33,49", *assignments):
        configs.override(config, *assignment.split("=", 1))
    return config


def assembled(*assignments, train=DATASET, validation=DATASET, **options):
    mesh, workdir = make_mesh(jax.devices()[:1]), pathlib.Path("unwritten")
    config = changed(*assignments)
    return assemble(config, workdir, mesh, train, validation, reporter=Reporter(), **options)


def test_components_follow_config_and_data():
    run = assembled("model.output_stride=8", "schedule.base_learning_rate=0.5")
    assert run.model.architecture.output_stride == 8
    assert run.model.architecture.num_classes == 4
    assert run.description.create_model() == run.model
    assert run.description.class_names == ("sky", "tree", "road", "car")
    assert run.description.source["trained_on"] == "arrays/arrays"
    assert run.augmentation.crop_size == (33, 49)
    assert float(run.learning_rate(0)) == 0.5
    assert not run.workdir.exists()


def test_crop_pooling_averages_over_the_training_crop():
    run = assembled("model.image_pooling=crop")
    assert run.model.architecture.pooling_crop == (33, 49)
    assert run.model.architecture.pooling_window == (3, 4)


def test_arrays_are_a_data_set():
    images = np.zeros((2, 20, 24, 3), np.uint8)
    masks = np.arange(2, dtype=np.uint8)[:, None, None] * np.ones((2, 20, 24), np.uint8)
    run = assembled(train=(images, masks), validation=(images, masks))
    assert isinstance(run.train, ArrayDataset)
    assert run.model.architecture.num_classes == 2


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("training.num_steps=0", "training.num_steps=0 must be a whole number of at least 1"),
        ("training.batch_size=-2", "training.batch_size=-2 must be a whole number of at least 1"),
        ("training.accumulation_steps=0", "steps=0 must be a whole number of at least 1"),
        (
            "evaluation.every_steps=0",
            "every_steps=0 must be a whole number of at least 1",
        ),
        ("log_every_steps=0", "log_every_steps=0 must be a whole number of at least 1"),
        ("training.accumulation_steps=3", "must be a multiple of 3"),
        ("training.ema_decay=1.0", r"training.ema_decay=1.0 must be in [0, 1)"),
        ("optimizer.name=sdg", "did you mean 'sgd'?"),
        ("model.backbone=mobilenetv2", "did you mean 'mobilenet_v2'?"),
        ("model.multi_grid=1,2,4", "which only ResNets support"),
        ("augmentation.crop_size=33", "crop_size=(33,) must be a height and a width"),
        ("augmentation.crop_size=33,33,3", "crop_size=(33, 33, 3) must be a height and a width"),
        ("augmentation.min_scale=0", "min_scale"),
        ("augmentation.max_scale=1e999", "max_scale=inf must be a finite number above 0"),
        ("augmentation.scale_step=-1", "scale_step=-1.0 must be at least 0 and finite"),
        ("augmentation.rotation=-30", "rotation=-30.0 must be at least 0 and finite"),
        ("augmentation.photometric=9", "photometric=9.0 must be in [0, 1]"),
        ("schedule.base_learning_rate=-0.01", "base_learning_rate=-0.01 must be at least 0"),
        ("schedule.power=-2", "schedule.power=-2.0 must be at least 0"),
        ("schedule.steps_per_drop=0", "steps_per_drop=0 must be a whole number of at least 1"),
        ("schedule.drop_factor=10", "schedule.drop_factor=10.0 must be in (0, 1]"),
        ("optimizer.momentum=1.5", "optimizer.momentum=1.5 must be in [0, 1)"),
        ("loss.dice=1e999", "loss.dice=inf must be at least 0 and finite"),
        ("loss.class_weights=1,-1,1,1", "must be finite numbers of at least 0, one per class"),
        ("training.patience=-3", "training.patience=-3 must be a whole number of at least 0"),
        ("training.init_scope=backbones", "did you mean 'backbone'?"),
        ("seed=-1", "seed=-1 must be a whole number from 0 to 2**32 - 1"),
        ("seed=4294967296", "seed=4294967296 must be a whole number from 0 to 2**32 - 1"),
        ("data.workers=-1", "data.workers=-1 must be a whole number of at least 0"),
        ("data.class_names=1,2,3,4", "data.class_names=(1, 2, 3, 4) must be names"),
        ("data.oversample_classes=1", "data.oversample_classes=(1,) must be names"),
        ("evaluation.size=5", "evaluation.size=(5,) must be a height and a width"),
        ("evaluation.limit=0", "evaluation.limit=0 must be a whole number of at least 1"),
        ("loss.class_weights=1.0,2.0", "4 weights, one per class (sky, tree, road, car), got 2"),
    ],
)
def test_illegal_fields_give_a_one_line_error(assignment, complaint):
    with pytest.raises(DeepLabError) as caught:
        assembled(assignment)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("group", [0, 1, 2, 3, 4, 6])
@pytest.mark.parametrize("parts", [1, 3, 4])
@pytest.mark.parametrize("shards", [1, 2, 4])
def test_legal_batches_are_the_multiples_of_the_batch_unit(group, parts, shards):
    mesh = jax.sharding.AbstractMesh((shards, 1), ("data", "spatial"))

    def is_legal(images):
        try:
            check_batch(images * shards, parts, mesh)
            check_ghost_batch_size(group, images * shards, parts)
        except DeepLabError:
            return False
        return True

    unit = batch_unit(group, parts, mesh)
    assert [*filter(is_legal, range(1, 60))] == [*range(unit, 60, unit)]


def test_a_strict_crop_is_an_error():
    with pytest.raises(DeepLabError, match=r"33×40 is not of the form k·16\+1"):
        assembled("augmentation.crop_size=33,40", "strict_crop=true")


def test_the_two_data_sets_must_agree():
    other = ArrayDataset(
        *([array] for array in (np.zeros((9, 9, 3), np.uint8), np.ones((9, 9), np.uint8)))
    )
    with pytest.raises(DeepLabError, match=r"number of classes, but .* has 4 and arrays has 2"):
        assembled(validation=other)


def test_a_class_must_have_the_same_label_in_both_data_sets():
    pixels = [np.zeros((9, 9, 3), np.uint8)], [np.ones((9, 9), np.uint8)]
    first, swapped, renamed = (
        ArrayDataset(*pixels, class_names=names, name=name)
        for name, names in {
            "first": ["floor", "cat", "dog"],
            "swapped": ["floor", "dog", "cat"],
            "renamed": ["ground", "cat", "hound"],
        }.items()
    )
    complaint = "'cat' is class 1 of first and class 2 of swapped"
    with pytest.raises(DeepLabError, match=complaint):
        check_classes(first, swapped, None)
    check_classes(first, renamed, None)


def test_without_a_data_set_the_field_is_named():
    with pytest.raises(DeepLabError, match=r"data\.name"):
        assembled(train=None)


@pytest.mark.parametrize(
    ("batch_size", "epochs", "steps", "per_epoch"),
    [(1, 4, 12, 3), (2, 1.5, 3, 2), (8, 2, 2, 1), (1, 0.001, 1, 3)],
)
def test_epochs_become_steps(batch_size, epochs, steps, per_epoch):
    found = assembled("model.image_pooling=none", batch_size=batch_size, epochs=epochs).config
    assert found.training.batch_size == batch_size
    assert found.training.num_steps == steps
    assert found.evaluation.every_steps == found.checkpoint.every_steps == per_epoch


@pytest.mark.parametrize("epochs", [0, -5, float("inf"), float("nan")])
def test_an_illegal_number_of_epochs_is_refused(epochs):
    with pytest.raises(DeepLabError, match=r"epochs=.* must be a finite number above 0"):
        assembled(batch_size=1, epochs=epochs)


def test_the_callers_config_stays_as_it_was():
    config = changed("model.image_pooling=none")
    before = configs.to_json(config)
    mesh, workdir = make_mesh(jax.devices()[:1]), pathlib.Path("unwritten")
    assemble(config, workdir, mesh, DATASET, DATASET, batch_size=1, epochs=1, reporter=Reporter())
    assert configs.to_json(config) == before


def test_batch_size_zero_is_refused_with_steps_and_with_epochs():
    with pytest.raises(
        DeepLabError, match=r"training\.batch_size=0 must be a whole number of at least 1"
    ):
        assembled(batch_size=0, epochs=1)


@pytest.mark.parametrize(
    ("assignments", "warned"),
    [
        ((), False),
        (("optimizer.multipliers.backbone=0",), True),
        (("optimizer.multipliers.backbone=0", "model.frozen_batch_norm=True"), False),
    ],
)
def test_a_frozen_part_with_moving_statistics_is_reported(assignments, warned):
    config, reporter = changed(*assignments), RecordingReporter()
    mesh, workdir = make_mesh(jax.devices()[:1]), pathlib.Path("unwritten")
    assemble(config, workdir, mesh, DATASET, DATASET, reporter=reporter)
    told = [text for text in reporter.warnings if "the parameters of backbone are frozen" in text]
    assert bool(told) == warned


@pytest.mark.parametrize(
    ("assignments", "starts"),
    [
        ((), []),
        (("optimizer.multipliers.backbone=0",), ["the backbone is frozen"]),
        (("model.frozen_batch_norm=True",), ["batch normalization is frozen"]),
        (("model.frozen_batch_norm=True", "training.init_from=runs/first"), []),
    ],
)
def test_frozen_random_values_are_reported(assignments, starts):
    config, reporter = changed(*assignments), RecordingReporter()
    mesh, workdir = make_mesh(jax.devices()[:1]), pathlib.Path("unwritten")
    assemble(config, workdir, mesh, DATASET, DATASET, reporter=reporter)
    told = [text for text in reporter.warnings if "training.init_from is empty" in text]
    assert [text.partition(" (")[0] for text in told] == starts


@pytest.mark.parametrize(("warmup", "warned"), [(9, True), (8, False)])
def test_a_warm_up_longer_than_the_run_is_reported(warmup, warned):
    reporter = RecordingReporter()
    config = changed("training.num_steps=8", f"schedule.warmup_steps={warmup}")
    mesh, workdir = make_mesh(jax.devices()[:1]), pathlib.Path("unwritten")
    assemble(config, workdir, mesh, DATASET, DATASET, reporter=reporter)
    text = "schedule.warmup_steps=9 is larger than training.num_steps=8"
    assert any(text in warning for warning in reporter.warnings) == warned


POOLING = ("model.architecture=deeplab_v3", "model.backbone=mobilenet_v2")
ASPP = (*POOLING, "model.head=aspp")
TORCHVISION = (
    "model.architecture=torchvision/deeplabv3_mobilenet_v3_large",
    "model.backbone=mobilenet_v3_large",
)


@pytest.mark.parametrize(
    ("assignments", "values"),
    [
        ((*POOLING, "model.ghost_batch_size=1"), 1),
        ((*ASPP, "model.ghost_batch_size=1"), 1),
        ((*ASPP, "model.ghost_batch_size=2"), 2),
        ((*ASPP, "model.ghost_batch_size=4"), None),
        ((*ASPP, "model.image_pooling=none", "model.ghost_batch_size=1"), None),
        ((*ASPP, "model.image_pooling=crop", "model.ghost_batch_size=1"), 1),
        ((*ASPP, "model.image_pooling=crop", "model.pooling_crop=33,33"), None),
        (
            (
                *ASPP,
                "model.image_pooling=crop",
                "model.pooling_crop=33,33",
                "model.ghost_batch_size=1",
            ),
            2,
        ),
        ((*ASPP, "model.frozen_batch_norm=True", "training.batch_size=1"), None),
        ((*ASPP, "training.batch_size=1"), 1),
        ((*ASPP, "training.batch_size=2"), 2),
        ((*ASPP, "training.batch_size=8", "training.accumulation_steps=8"), 1),
        ((*ASPP, "training.batch_size=8", "training.accumulation_steps=4"), 2),
        ((*TORCHVISION, "model.ghost_batch_size=1"), 1),
        ((*POOLING, "model.head=spp", "model.ghost_batch_size=1"), 1),
        ((*POOLING, "model.head=spp", "model.ghost_batch_size=2"), 2),
        ((*POOLING, "model.head=dpc", "model.ghost_batch_size=1"), None),
        (
            (
                "model.architecture=deeplab_v3",
                "model.backbone=mobilenet_v3_small_seg",
                "model.ghost_batch_size=1",
            ),
            None,
        ),
        (
            ("model.architecture=deeplab_v2", "model.backbone=resnet_18", "training.batch_size=1"),
            None,
        ),
    ],
)
def test_one_value_per_pooled_channel_is_refused_and_two_are_a_warning(assignments, values):
    config, reporter = changed("training.batch_size=16", *assignments), RecordingReporter()
    mesh, workdir = make_mesh(jax.devices()[:1]), pathlib.Path("unwritten")

    def assemble_it():
        return assemble(config, workdir, mesh, DATASET, DATASET, reporter=reporter)

    if values == 1:
        with pytest.raises(DeepLabError, match=r"one value per channel.*frozen_batch_norm=True"):
            assemble_it()
    else:
        assemble_it()
    assert any("only two values per channel" in text for text in reporter.warnings) == (values == 2)


def test_rows_one_after_the_other_are_not_shared_out():
    mesh = jax.sharding.AbstractMesh((2, 2), ("data", "spatial"))
    check_chunk_rows(0, mesh)
    check_chunk_rows(64, make_mesh(jax.devices()[:1]))
    with pytest.raises(DeepLabError, match=r"chunk_rows=64 .* parallel.spatial=2"):
        check_chunk_rows(64, mesh)


@pytest.mark.parametrize(
    ("train_values", "validation_values", "names", "expected"),
    [
        ((0, 255), (0, 255), None, (1, 1)),
        ((0, 255), (0, 0), ("a", "b"), (1, None)),
        ((0, 0), (255, 255), None, (None, 1)),
        ((0, 1, 255), (0, 255), ("a", "b"), (255, 255)),
        ((0, 255), (0, 1, 255), ("a", "b"), (255, 255)),
        ((0, 255), (0, 255), ("a", "b", "c"), (255, 255)),
    ],
)
def test_arrays_of_0_and_255_mean_the_same_in_training_and_validation(
    train_values, validation_values, names, expected
):
    """If both together have only the values 0 and 255, 255 is the second class, otherwise void."""
    config = changed()
    config.data.class_names = names

    def arrays(values):
        masks = [np.full((9, 9), value, np.uint8) for value in values]
        return [np.zeros((9, 9, 3), np.uint8)] * len(masks), masks

    mesh, workdir = make_mesh(jax.devices()[:1]), pathlib.Path("unwritten")
    pairs = arrays(train_values), arrays(validation_values)
    run = assemble(config, workdir, mesh, *pairs, batch_size=4, reporter=Reporter())
    assert run.model.architecture.num_classes == len(names or ("", ""))
    for dataset, values, label in zip(
        (run.train, run.validation), (train_values, validation_values), expected, strict=True
    ):
        found = [dataset[index]["label"][0, 0] for index, v in enumerate(values) if v == 255]
        assert found == [label] * len(found)


def test_one_class_of_arrays_is_refused():
    images, masks = np.zeros((2, 9, 9, 3), np.uint8), np.zeros((2, 9, 9), np.uint8)
    with pytest.raises(DeepLabError, match="at least two"):
        assembled(train=(images, masks), validation=(images, masks))


def test_classes_without_a_pixel_in_arrays_are_reported():
    config, warnings = changed(), RecordingReporter()
    config.data.class_names = ("a", "b", "c")
    pair = np.zeros((2, 9, 9, 3), np.uint8), np.ones((2, 9, 9), np.uint8)
    mesh, workdir = make_mesh(jax.devices()[:1]), pathlib.Path("unwritten")
    assemble(config, workdir, mesh, pair, pair, batch_size=4, reporter=warnings)
    assert any("2 of 3 classes" in text and "a, c" in text for text in warnings.warnings)


@pytest.mark.parametrize(
    ("frozen", "passes"),
    [
        ((), {"backbone": 3, "head": 3}),
        (("backbone",), {"backbone": 1, "head": 3}),
        # The gradient of the backbone passes through the head.
        (("head", "decoder", "classifier"), {"backbone": 3, "head": 2}),
        (("backbone", "head", "decoder", "classifier"), {"backbone": 1, "head": 1}),
    ],
)
def test_the_operations_of_a_step_are_those_of_its_passes(frozen, passes):
    run = assembled(*(f"optimizer.multipliers.{part}=0" for part in frozen))
    layers = summarize(run.model, run.augmentation.crop_size).layers
    parts = ["backbone" if layer.name.startswith("backbone/") else "head" for layer in layers]
    macs = sum(passes[part] * layer.macs for part, layer in zip(parts, layers, strict=True))
    assert step_flops(run) == 2 * macs * run.config.training.batch_size
