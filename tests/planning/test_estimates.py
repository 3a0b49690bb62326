"""Topologies by name, chips' figures, the roofline, the largest batch, the sums of a step."""

import dataclasses
import math
import sys

import jax
import numpy as np
import pytest

from deeplab_jax import config as configs
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models import Architecture, create_model
from deeplab_jax.models.summary import trace
from deeplab_jax.parallel.chips import published_peak
from deeplab_jax.planning import chips, parse_topology
from deeplab_jax.planning import hardware as topologies
from deeplab_jax.planning.causes import _from_parameters, find_causes, least_communication
from deeplab_jax.planning.collectives import Collective
from deeplab_jax.planning.compiled_step import (
    OUT_OF_MEMORY,
    estimated_largest_batch,
    read_refusal,
    searched_largest_batch,
)
from deeplab_jax.planning.duration import Schedule, estimate_duration
from deeplab_jax.planning.hardware import (
    HOP_SECONDS,
    NETWORK_SECONDS,
    Chip,
    Work,
    estimate,
    scaling,
)
from deeplab_jax.planning.hlo import Array
from deeplab_jax.planning.reductions import (
    Reductions,
    expected_gathers,
    expected_reductions,
    found_reductions,
    gathered_activations,
    gathered_parameters,
    halo_traffic,
)

CHIP = Chip("a chip", 100.0, 64, 60, 10.0, 5.0, 2, 256, "nowhere")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("v5e:16x16", (16, 16)),
        ("v6e:2x4", (2, 4)),
        ("v5p:4x4x8", (4, 4, 8)),
        ("v4:2x2x1", (2, 2, 1)),
    ],
)
def test_a_slice_by_its_name(name, shape):
    topology = parse_topology(name)
    assert topology.shape == shape
    assert topology.num_chips == math.prod(shape)
    assert topology.chip is chips()[name.partition(":")[0]]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("v5:16x16", "did you mean 'v5[ep]'"),
        ("v5e", "expected chip and shape, as in v5e:4x4"),
        ("v5e:16", "2 dimensions, as in v5e:4x4"),
        ("v5p:16x16", "3 dimensions, as in v5p:4x4x4"),
        ("v5e:0x4", "invalid topology"),
        ("v5e:4x4 ", "expected chip and shape"),
        ("v5e:16x32", "512 chips; the largest v5e slice has 256"),
        (
            "h100:16",
            "one host with N GPUs \\(at most 8\\), or h100:HxN for H hosts, as in h100:4x8",
        ),
        ("h100:2x2x2", "at most 8\\), or h100:HxN for H hosts"),
        ("h100", "expected chip and shape, as in h100:8"),
    ],
)
def test_an_unknown_slice_error_lists_the_legal_ones(name, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        parse_topology(name)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("v5e:2x2", "libtpu", "tpu"), ("h100:8", "jax_cuda13_plugin", "cuda")],
)
def test_a_missing_compiler_error_names_the_extra(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    message = rf"^a plan for [TG]PUs requires {module}.* pip install 'deeplab_jax\[{extra}\]'"
    with pytest.raises(DeepLabError, match=message):
        topologies.topology_devices(parse_topology(name))


def test_published_figures_are_in_order():
    for chip in chips().values():
        least = 0.74 if chip.is_gpu else 0.89
        assert least * chip.hbm_bytes < chip.usable_hbm_bytes < chip.hbm_bytes
        assert chip.network_bandwidth < chip.ici_bandwidth / 6
        assert chip.peak_flops > 100 * chip.hbm_bandwidth > 100 * chip.ici_bandwidth
        assert chip.source.startswith("https://")


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        ("TPU v5 lite", 197e12),
        ("TPU v4", 275e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", None),
        ("cpu", None),
    ],
)
def test_the_peak_rate_of_a_device_by_its_name(kind, peak):
    assert (published_peak(kind) or (None,))[0] == peak


def test_a_step_takes_the_longer_of_arithmetic_and_memory_and_then_sends():
    work = Work(flops=300.0, hbm_bytes=20.0, reduced_bytes=10.0, reductions=3, halo_bytes=5.0)
    times = estimate(work, CHIP, 16)
    assert (times.compute, times.memory) == (3.0, 2.0)
    assert times.reduction == pytest.approx(2 * 15 / 16 * 10 / 5 + 3 * 2 * 4 * HOP_SECONDS)
    assert times.halo == pytest.approx(5 / (5 / 4))
    assert times.step == pytest.approx(3 + times.reduction + 4)
    assert times.bound == "halo"


def test_slices_add_a_part_of_the_sums_over_the_network():
    chip = dataclasses.replace(CHIP, network_bandwidth=0.5)
    work = Work(flops=300.0, hbm_bytes=20.0, reduced_bytes=10.0, reductions=3)
    times = estimate(work, chip, 64, num_slices=4)
    assert times.reduction == estimate(work, CHIP, 16).reduction
    assert times.network == pytest.approx(2 * 3 / 4 * (10 / 16) / 0.5 + 3 * NETWORK_SECONDS)
    assert times.step == pytest.approx(3 + times.reduction + times.network)


@pytest.mark.parametrize(
    ("name", "slices", "chips_in_all", "hosts"),
    [("h100:8", 1, 8, 1), ("h200:4x8", 1, 32, 4), ("a100:2x4", 1, 8, 2), ("v5e:4x4", 3, 48, 3)],
)
def test_hosts_with_gpus_and_slices_are_counted(name, slices, chips_in_all, hosts):
    topology = parse_topology(name, slices)
    assert (topology.num_chips, topology.num_slices) == (chips_in_all, hosts)


@pytest.mark.parametrize(
    ("name", "slices", "complaint"),
    [
        ("v4:2x2x1", 2, "of v4 is not published; chips with a published bandwidth: v5e"),
        ("h100:8", 2, "--num_slices=2 is only for TPUs; for GPUs, give hosts x GPUs .*h100:1x8"),
        ("v5e:4x4", 0, "--num_slices=0 must be at least 1"),
    ],
)
def test_slices_that_cannot_be_planned_are_refused(name, slices, complaint):
    with pytest.raises(DeepLabError, match=complaint):
        parse_topology(name, slices)


def test_efficiency_falls_where_gpus_are_no_longer_on_one_host():
    chip = dataclasses.replace(
        CHIP, dimensions=0, largest=8, ici_bandwidth=500.0, network_bandwidth=0.5, target="x"
    )
    found = scaling(Work(300.0, 20.0, 10.0, 3), chip)
    assert max(found) == 256
    assert found[8] > 0.9 > found[16]


def test_a_single_chip_communicates_nothing():
    assert estimate(Work(300.0, 20.0, 10.0, 3), CHIP, 1).step == 3.0


@pytest.mark.parametrize(("smallest", "counts"), [(1, [1, 2, 128, 256]), (2, [2, 4, 128, 256])])
def test_efficiency_falls_from_one_with_the_number_of_chips(smallest, counts):
    found = scaling(Work(300.0, 20.0, 10.0, 3), CHIP, smallest)
    assert set(counts) <= set(found)
    assert max(found) == CHIP.largest
    shares = list(found.values())
    assert shares[0] == 1.0
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(
    ("usable", "largest"), [(1000, 9), (1099, 9), (1100, 10), (150, 0), (99, 0)]
)
def test_the_largest_batch_is_found_to_the_image(usable, largest):
    tried = []

    def used(images):
        tried.append(images)
        return 100 + 100 * images + (images == 7)

    found = searched_largest_batch(used, (2, 300), 100, usable)
    assert found.images == largest
    assert len(tried) <= 4
    assert estimated_largest_batch(300, 100, usable, 2).images == largest


@pytest.mark.parametrize(("usable", "largest"), [(2000, 16), (2099, 16), (2100, 20), (400, 0)])
def test_the_largest_batch_is_a_multiple_of_the_unit(usable, largest):
    tried = []

    def used(images):
        tried.append(images)
        return 100 + 100 * images + (images == 12)

    found = searched_largest_batch(used, (8, 900), 100, usable, 4)
    assert found.images == largest
    assert not [images for images in tried if images % 4]
    assert len(tried) <= 4
    assert estimated_largest_batch(900, 100, usable, 8, 4).images == largest


def test_the_largest_batch_is_found_for_nonlinear_memory():
    def used(images):
        return 50 + 10 * images + images**2 // 4

    assert searched_largest_batch(used, (2, 71), 50, 1000).images == 44


@pytest.mark.parametrize(("usable", "largest"), [(299, 0), (300, 2), (350, 2), (500, 4)])
def test_a_number_of_images_that_training_refuses_is_not_the_largest(usable, largest):
    def used(images):
        return None if images == 1 else 100 + 100 * images

    assert searched_largest_batch(used, (8, 900), 100, usable).images == largest


def test_the_image_has_no_gradient_at_any_scale():
    model = create_model("deeplab_v2", backbone="resnet_18", num_classes=4, multi_scale=(1, 0.5))
    program = trace(model, (65, 65))
    images = [
        operation.inputs[0].number
        for operation in program.operations
        if operation.name == "conv_general_dilated" and operation.inputs[0].shape[-1] == 3
    ]
    trained = _from_parameters(program)
    assert len(set(images)) == 2
    assert trained.isdisjoint(images)
    assert program.outputs[0].number in trained


class Leaf:
    """What planning reads of an array."""

    def __init__(self, *shape):
        self.shape, self.ndim, self.dtype = shape, len(shape), np.dtype("f4")


VARIABLES = {
    "params": {
        "conv": {"kernel": Leaf(3, 3, 6, 8), "norm": {"scale": Leaf(8), "bias": Leaf(8)}},
    },
    "batch_stats": {"conv": {"norm": {"mean": Leaf(8), "var": Leaf(8)}}},
}
KERNEL, VECTORS = 3 * 3 * 6 * 8, 16


@pytest.mark.parametrize(
    ("options", "parts", "wanted"),
    [
        ({}, 1, (4 * KERNEL + 4 * VECTORS, 4 * 2 * 8)),
        ({"dtype": "bfloat16"}, 1, (2 * KERNEL + 4 * VECTORS, 4 * 2 * 8)),
        ({}, 2, (2 * (4 * KERNEL + 4 * VECTORS), 2 * 4 * 2 * 8)),
        ({"frozen_batch_norm": True}, 1, (4 * KERNEL + 4 * VECTORS, 0)),
        ({"ghost_batch_size": 4}, 1, (4 * KERNEL + 4 * VECTORS, 0)),
    ],
)
def test_required_sums_over_the_chips(options, parts, wanted):
    architecture = Architecture("mobilenet_v2", **options)
    assert expected_reductions(architecture, VARIABLES, parts) == Reductions(*wanted)


def test_the_offsets_of_a_shortcut_and_of_what_is_added_to_it_have_one_sum():
    # Bytes that the TPU compiler's programs of ResNet-101 sum: see docs/guides/planning.md.
    model = create_model("deeplab_v3", backbone="resnet_101_beta", num_classes=19, dtype="bfloat16")
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), np.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    found = expected_reductions(model.architecture, variables)
    assert found == Reductions(116_545_484, 419_840)


def collective(kind, *shapes, axes=("data",), times=1):
    return Collective(kind, tuple(Array("f32", shape) for shape in shapes), axes, times)


def test_reductions_are_classified_by_purpose():
    found = found_reductions(
        [
            collective("all-reduce", (3, 3, 6, 8), axes=("data", "spatial")),
            collective("all-reduce", (8,), (8,)),
            collective("all-reduce", (8,), (8,), (8,)),
            collective("all-reduce", ()),
            collective("all-reduce", (2, 1, 1, 8), axes=("spatial",)),
            collective("all-gather", (8,)),
        ],
        VARIABLES,
    )
    assert found == Reductions(4 * KERNEL + 4 * VECTORS, 4 * 3 * 8, 4 + 4 * 16)


def test_communication_is_counted_by_cause():
    both, rows = ("data", "spatial"), ("spatial",)
    found = find_causes(
        [
            # A gradient that is summed along one axis and then along the other counts twice.
            collective("all-reduce", (3, 3, 6, 8), axes=rows),
            collective("all-reduce", (3, 3, 6, 8), (8,), (8,)),
            collective("reduce-scatter", (3, 3, 6, 8), times=2),
            collective("all-gather", (3, 3, 6, 8)),
            collective("all-reduce", (8,), (8,), axes=both),
            collective("all-reduce", (2, 1, 1, 8), axes=rows),
            collective("all-gather", (2, 4, 4, 8), axes=rows),
            collective("all-to-all", (2, 4, 4, 2)),
            collective("collective-permute", (2, 1, 4, 8), axes=rows, times=3),
        ],
        VARIABLES["params"],
    )
    assert found == {
        "gradients": (4, 3 * 4 * KERNEL + 4 * VECTORS),
        "statistics": (2, 4 * VECTORS),
        "gathered parameters": (1, 2 * KERNEL),
        "halo": (3, 3 * 4 * 64),
        "gathered rows": (1, 2 * 256),
        "gathered maps": (1, 2 * 64),
        "others": (1, 4 * 16),
    }


def test_statistics_of_each_microbatch_are_communicated():
    sums = [collective("all-reduce", (8,), (8,), times=4)] * 2
    found = find_causes(sums, VARIABLES["params"], 4)
    assert (found["gradients"][1], found["statistics"][1]) == (4 * 4 * VECTORS, 4 * 4 * VECTORS)
    model = create_model("deeplab_v3", backbone="resnet_18", num_classes=4)
    once, fourfold = (
        least_communication(model, VARIABLES, (65, 65), 4, 1, steps) for steps in (1, 4)
    )
    assert fourfold["statistics"] == 4 * once["statistics"] == 4 * 4 * 2 * 8
    assert fourfold["gradients"] == once["gradients"]


@pytest.mark.parametrize(
    ("workers", "bound", "waiting"), [(0, "memory", 0), (2, "memory", 0), (1, "input", 962)]
)
def test_the_duration_of_a_run_has_validations_checkpoints_and_input(workers, bound, waiting):
    schedule = Schedule(
        num_steps=36_000,
        global_batch=128,
        validations=3,
        validation_images=38_400 * 3,
        saves=36,
        num_hosts=2,
        workers=workers,
        pixels=513 * 513,
    )
    found = estimate_duration(
        schedule, step_seconds=0.1, bound="memory", state_bytes=8 * 10**8, compile_seconds=45
    )
    assert (found.steps, found.start_up, found.cores) == (3600, 60, 2)
    assert found.validations == pytest.approx(3 * 900 * 0.1 / 3)
    assert found.saves == pytest.approx(36 * 1.1)
    assert found.bound == bound
    assert found.input == pytest.approx(waiting, abs=1)
    trained = found.steps + found.validations
    assert found.goodput == pytest.approx(trained / (trained + found.saves + found.input))


def test_the_schedule_of_a_config_counts_each_step_once():
    config = configs.default()
    config.training.num_steps = 2500
    config.evaluation.every_steps, config.checkpoint.every_steps = 1000, 500
    schedule = Schedule.of(config, (513, 513), 4)
    assert (schedule.validations, schedule.saves, schedule.validation_images) == (3, 5, None)
    assert Schedule.of(config, (513, 513), 4, 1449).validation_images == 1449
    config.evaluation.limit = 100
    assert Schedule.of(config, (513, 513), 4, 1449).validation_images == 100


def test_only_feature_maps_gathered_across_images_are_reported():
    found = gathered_activations(
        [
            collective("all-gather", (3, 3, 6, 8)),
            collective("all-gather", (4, 65, 65, 8), axes=("spatial",)),
            collective("all-gather", (4, 65, 65, 8), times=3),
            collective("all-to-all", (2, 9, 8)),
        ],
        VARIABLES,
    )
    assert found == {"count": 4, "bytes": 4 * (3 * 4 * 65 * 65 * 8 + 2 * 9 * 8)}


def test_parameters_that_lie_in_parts_are_gathered_once():
    kernel = collective("all-gather", (3, 3, 6, 8))
    maps = collective("all-gather", (4, 65, 65, 8))
    assert gathered_parameters([kernel, maps], VARIABLES) == {"count": 1, "bytes": 4 * KERNEL}
    mesh = jax.sharding.AbstractMesh((2, 1), ("data", "spatial"))
    parts, whole = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in ((None, None, None, "data"), ())
    )
    params = [
        jax.ShapeDtypeStruct((3, 3, 6, 8), np.float32, sharding=parts),
        jax.ShapeDtypeStruct((8,), np.float32, sharding=whole),
    ]
    assert expected_gathers(Architecture("mobilenet_v2", dtype="bfloat16"), params) == 2 * KERNEL


def test_halos_are_what_neighbours_in_space_send():
    found = halo_traffic(
        [
            collective("collective-permute", (4, 1, 65, 8), axes=("spatial",), times=16),
            collective("collective-permute", (4, 1, 65, 8), axes=("data",)),
            collective("all-reduce", (8,), axes=("spatial",)),
        ]
    )
    assert found == {"count": 16, "bytes": 16 * 4 * 4 * 65 * 8}


@pytest.mark.parametrize(
    "message",
    [
        "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded by 4.75G.",
        "Ran out of memory on HBM, the total memory required for HLO temporaries (20.50G) exceeds "
        "available HBM (15.75G).",
    ],
)
def test_an_out_of_memory_error_states_the_missing_bytes(message):
    assert OUT_OF_MEMORY.search(message)
    assert read_refusal(message) == (round(20.5 * 2**30), round(15.75 * 2**30))


def test_an_out_of_memory_error_can_state_terabytes():
    found = read_refusal("Used 1.25T of 15.75G hbm. Exceeded by 1.23T.")
    assert found == (round(1.25 * 2**40), round(15.75 * 2**30))


def test_an_unknown_refusal_is_not_guessed_at():
    with pytest.raises(ValueError, match="unknown out-of-memory message"):
        read_refusal("no room")
