"""A plan as it is printed, and one of the real compiler's."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import pytest

from deeplab_jax import config as configs
from deeplab_jax.cli import plan as command
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.main import run
from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel import make_mesh
from deeplab_jax.planning import Plan, parse_topology, plan
from deeplab_jax.planning.causes import Cause
from deeplab_jax.planning.compiled_step import CompiledStep, LargestBatch, abstract_arguments
from deeplab_jax.planning.dataset_stub import assemble_unseen, unseen_dataset
from deeplab_jax.planning.duration import Duration
from deeplab_jax.planning.hardware import Estimate
from deeplab_jax.planning.plan import Traffic, _largest_batch, fixed_memory
from deeplab_jax.planning.reductions import Reductions
from deeplab_jax.reporter import Reporter
from deeplab_jax.training.checks import check_batch, check_ghost_batch_size
from experiments import pod_plans

PROMISED = {
    "topology",
    "num_chips",
    "global_batch",
    "compile_seconds",
    "hbm_bytes_per_chip",
    "flops_per_chip",
    "collectives",
    "fits",
}


def made_plan(*, fits=True):
    """Returns a plan of round numbers."""
    total = 4 * 2**30 if fits else 40 * 2**30
    return Plan(
        topology=parse_topology("v5e:2x2"),
        mesh={"data": 2, "spatial": 2},
        architecture={"backbone": "resnet_50"},
        crop_size=(65, 97),
        global_batch=8,
        num_steps=36_000,
        num_hosts=2,
        step=CompiledStep({"total": total}, None, fits, 1.0, 61.0, 59.0, ""),
        usable_hbm_bytes=16 * 2**30,
        analytic_flops_per_chip=2e12,
        flops_per_chip=2.5e12 if fits else None,
        hbm_traffic_per_chip=1e9 if fits else None,
        vmem_traffic_per_chip=2e9 if fits else None,
        traffic=Traffic(
            {"all-reduce": {"count": 3, "bytes": 5_000_000}},
            Reductions(4_000_000, 1_000_000),
            Reductions(4_010_000, 990_000),
            {"count": 16, "bytes": 250_000},
            {"count": 0, "bytes": 0},
            {"count": 0, "bytes": 0},
            0,
            causes={
                "gradients": Cause(2, 4_010_000, 4_000_000),
                "halo": Cause(16, 250_000, None),
                "others": Cause(0, 0, 0),
            },
        )
        if fits
        else None,
        largest_batch=LargestBatch(9, "made up"),
        estimate=Estimate(0.004, 0.002, 0.001, 0.0005) if fits else None,
        scaling={2: 1.0, 4: 0.9, 256: 0.5} if fits else {},
        duration=Duration(3600.0, 360.0, 36.0, 60.0, 4.0, 2, "compute") if fits else None,
    )


def small_config(spatial=1):
    """Returns a config of a network that compiles within a minute."""
    config = configs.default()
    config.data.name = "voc_segmentation"
    config.model.update(
        {
            "architecture": "deeplab_v3",
            "backbone": "mobilenet_v2",
            "depth_multiplier": 0.25,
            "dtype": "bfloat16",
        }
    )
    config.augmentation.crop_size = (65, 97)
    config.training.batch_size = 8
    config.parallel.spatial = spatial
    return config


@pytest.fixture
def printed(monkeypatch, capsys):
    """Returns what the command prints of a plan that nobody computed."""

    def call(made, *flags):
        monkeypatch.setattr("deeplab_jax.planning.plan", lambda *_, **__: made)
        monkeypatch.setenv("JAX_PLATFORMS", "cpu")
        assert run(["plan", "--config=voc", "--topology=v5e:2x2", *flags], Console()) == 0
        return capsys.readouterr().out

    return call


def test_a_compile_cache_does_not_make_a_plan_use_accelerators(tmp_path):
    """A flag of the compile cache imports JAX before the platform is selected."""
    program = f"""
import jax, deeplab_jax.planning
deeplab_jax.planning.plan = lambda *_, **__: print(jax.config.jax_platforms) or exit()
from deeplab_jax.cli.main import run_process
import sys
sys.argv = "deeplab-jax plan --config=voc --topology=v5e:2x2 --compile_cache={tmp_path}".split()
run_process()
"""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert found.stdout == "cpu\n", found.stderr


@pytest.mark.parametrize("fits", [True, False])
def test_json_holds_what_is_promised(printed, fits):
    found = json.loads(printed(made_plan(fits=fits), "--json"))
    assert set(found) >= PROMISED
    assert found["fits"] is fits
    assert found["largest_batch"] == {"per_part": 9, "global": 18, "how": "made up"}
    if fits:
        assert found["roofline"]["step"] == pytest.approx(0.0055)
        assert found["roofline"]["scaling_efficiency"] == {"2": 1.0, "4": 0.9, "256": 0.5}
        assert found["all_reduce"]["batch_norm_sums"] == 990_000
        assert found["causes"]["gradients"] == {
            "count": 2,
            "bytes": 4_010_000,
            "least": 4_000_000,
        }
        assert found["duration"]["total"] == 4060


@pytest.mark.parametrize(
    ("fits", "lines"),
    [
        (
            True,
            [
                "fits",
                "3 with 5.00 MB",
                "16 with 0.25 MB",
                "2.500 TFLOP",
                "5.5 ms, 1,455",
                "727 images/s",
                "0.06 h",
                "2 with 4.01 MB (4.00 MB)",
                "16 with 0.25 MB (unknown)",
                "0.10 h (not included: give --validation_images)",
                "0.990",
                "this run takes about 1.1 hours on v5e:2x2, bound by compute",
            ],
        ),
        (False, ["40.00 of 16.00 GiB: DOES NOT FIT", "unknown", "18 images (made up)"]),
    ],
)
def test_tables_describe_the_bound_in_words(printed, fits, lines):
    text = printed(made_plan(fits=fits))
    assert not [line for line in lines if line not in text]
    assert ("efficiency on 4 chips" in text) is fits


@pytest.mark.parametrize("fits", [True, False])
def test_the_table_has_the_figures_of_a_plan(fits):
    made = made_plan(fits=fits).describe()
    assert pod_plans.label(made) == "resnet_50, 65×97, 2 chips per image, batch 8, v5e:2x2"
    figures = pod_plans.figures(made)
    assert figures["memory per chip"] == ("4.00" if fits else "40.00", "GiB")
    assert figures["step, at least"] == (("5.5", "ms") if fits else ("does not fit", ""))
    assert ("between slices" in figures) is fits


@pytest.mark.parametrize("name", pod_plans.PLANS)
def test_the_table_plans_configs_that_there_are(name):
    planned = pod_plans.PLANS[name]
    config = configs.load(planned.config)
    for field, text in planned.fields.items():
        configs.override(config, field, text)
    topology = parse_topology(planned.topology, planned.num_slices)
    assert config.training.batch_size % (topology.num_chips // config.parallel.spatial) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--config=voc"], "--topology must be given"),
        (["--config=voc", "--topology=v5f:2x2"], "unknown chip 'v5f'"),
        (["x", "--config=voc", "--topology=v5e:2x2"], "plan takes only flags, not 'x'"),
        (
            ["--config=voc", "--topology=v5e:2x2", "--config.parallel.spatial=0"],
            "parallel.spatial=0 must be a divisor of 4",
        ),
        (["--config=voc", "--topology=v5e:2x2", "--num_classes=0"], "--num_classes=0"),
        (
            ["--config=voc", "--topology=v5e:2x2", "--validation_images=-9"],
            "--validation_images=-9",
        ),
    ],
)
def test_mistakes_are_reported_before_compilation(capsys, arguments, complaint):
    assert run(["plan", *arguments], Console()) == 2
    assert complaint in capsys.readouterr().err
    assert command.__doc__.startswith("usage: deeplab-jax plan ")


def test_rows_of_an_image_stay_within_a_slice_or_host():
    with pytest.raises(DeepLabError, match=r"parallel\.spatial=4 must be a divisor of 2"):
        plan(small_config(spatial=4), "h100:4x2", reporter=Reporter())


def test_class_counts_come_from_dataset_config_or_flag():
    config = configs.default()
    config.data.name = "cityscapes"
    assert len(unseen_dataset(config).descriptor.class_names) == 19
    assert len(unseen_dataset(config, 5).descriptor.class_names) == 5
    assert len(set(unseen_dataset(config, 847).descriptor.palette)) == 847
    with pytest.raises(DeepLabError, match="num_classes=0: no class"):
        unseen_dataset(config, 0)
    config.data.name = "mine"
    with pytest.raises(DeepLabError, match="'mine' is unknown; give --num_classes"):
        unseen_dataset(config)
    config.data.class_names = ("sky", "road")
    assert unseen_dataset(config).descriptor.class_names == ("sky", "road")


@pytest.mark.parametrize(("count", "dtype"), [(255, "uint8"), (256, "uint16"), (300, "uint16")])
def test_labels_are_as_wide_as_the_number_of_classes_needs(count, dtype):
    """As the pipeline's: a plan compiles the step that training runs."""
    config = configs.default()
    config.data.name = "mine"
    config.model.update({"architecture": "deeplab_v3", "backbone": "mobilenet_v2"})
    run = assemble_unseen(config, make_mesh(jax.devices()[:1]), count, Reporter())
    _, batch = abstract_arguments(run)
    assert batch["label"].dtype == dtype
    assert batch["image"].dtype == "uint8"


@pytest.mark.parametrize("search", [False, True])
@pytest.mark.parametrize(
    ("accumulation_steps", "ghost_batch_size", "largest"), [(1, 0, 23), (4, 0, 20), (2, 4, 16)]
)
def test_the_largest_batch_is_one_that_training_accepts(
    monkeypatch, search, accumulation_steps, ghost_batch_size, largest
):
    config = small_config()
    config.training.accumulation_steps = accumulation_steps
    config.model.ghost_batch_size = ghost_batch_size
    run = assemble_unseen(config, make_mesh(jax.devices()[:1]), None, Reporter())
    fixed = fixed_memory(run)

    def compiled(images):
        return CompiledStep({"total": fixed + images}, None, True, 1.0, 1.0, 1.0, "")

    def compile_step(tried):
        together = tried.config.training.batch_size
        check_batch(together, accumulation_steps, tried.mesh)
        check_ghost_batch_size(ghost_batch_size, together, accumulation_steps)
        return compiled(together)

    monkeypatch.setattr("deeplab_jax.planning.compiled_step.compile_step", compile_step)
    found = _largest_batch(run, run.mesh, compiled(8), fixed + 23, search, Reporter())
    assert found.images == largest


@pytest.mark.parametrize(
    ("power", "memory", "search", "largest"),
    [(1, 1, False, 0), (1, 1, True, 0), (2, 4, True, 2)],
)
def test_a_batch_that_training_refuses_is_not_the_largest_batch(
    monkeypatch, power, memory, search, largest
):
    """Image pooling leaves one value per channel of one image; the search continues above it."""
    run = assemble_unseen(small_config(), make_mesh(jax.devices()[:1]), None, Reporter())
    fixed = fixed_memory(run)

    def compiled(images):
        return CompiledStep({"total": fixed + images**power}, None, True, 1.0, 1.0, 1.0, "")

    def compile_step(tried):
        assert tried.config.training.batch_size > 1
        return compiled(tried.config.training.batch_size)

    monkeypatch.setattr("deeplab_jax.planning.compiled_step.compile_step", compile_step)
    found = _largest_batch(run, run.mesh, compiled(8), fixed + memory, search, Reporter())
    assert found.images == largest


def test_an_error_of_the_compilation_is_not_a_batch_that_training_refuses(monkeypatch):
    run = assemble_unseen(small_config(), make_mesh(jax.devices()[:1]), None, Reporter())
    fixed = fixed_memory(run)

    def compile_step(tried):
        raise DeepLabError("another error")

    monkeypatch.setattr("deeplab_jax.planning.compiled_step.compile_step", compile_step)
    first = CompiledStep({"total": fixed + 8}, None, True, 1.0, 1.0, 1.0, "")
    with pytest.raises(DeepLabError, match="another error"):
        _largest_batch(run, run.mesh, first, fixed + 4, True, Reporter())


@pytest.mark.parametrize("search", [False, True])
def test_the_largest_batch_of_a_step_that_never_stores_all_gradients(monkeypatch, search):
    run = assemble_unseen(small_config(), make_mesh(jax.devices()[:1]), None, Reporter())
    each = fixed_memory(run) // 16

    def compiled(images):
        return CompiledStep({"total": images * each}, None, True, 1.0, 1.0, 1.0, "")

    def compile_step(tried):
        return compiled(tried.config.training.batch_size)

    monkeypatch.setattr("deeplab_jax.planning.compiled_step.compile_step", compile_step)
    found = _largest_batch(run, run.mesh, compiled(8), 20 * each, search, Reporter())
    assert found.images == 20


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)
@pytest.mark.parametrize("spatial", [1, 2])
def test_the_real_compiler_sums_gradients_and_statistics_and_gathers_no_maps(spatial):
    found = plan(small_config(spatial), "v5e:2x2", reporter=Reporter())
    traffic = found.traffic
    assert found.mesh == {"data": 4 // spatial, "spatial": spatial}
    assert found.step.fits
    assert traffic.gathered_activations == {"count": 0, "bytes": 0}
    assert traffic.reductions.gradients == pytest.approx(
        traffic.expected_reductions.gradients, rel=0.01
    )
    reduced = sum(traffic.reductions[:2])
    assert reduced == pytest.approx(traffic.expected_reductions.total, rel=0.01)
    assert (traffic.halo["count"] > 0) is (spatial == 2)
    sent = sum(cause.bytes for cause in traffic.causes.values())
    assert sent <= 1.1 * sum(cause.least for cause in traffic.causes.values())
    # Besides the counted layers, resizing is matrix products.
    assert 0.9 < found.flops_per_chip / found.analytic_flops_per_chip < 1.5
    # The state is read and written once; feature maps as small as these stay in the vector memory.
    state = found.step.memory["arguments"]
    assert state < found.hbm_traffic_per_chip < 3 * state
    assert found.vmem_traffic_per_chip > found.hbm_traffic_per_chip


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU compiler, is not installed"
)
def test_slices_send_gradients_and_statistics_once_and_no_rows():
    found = plan(small_config(spatial=2), "v5e:2x2", num_slices=2, reporter=Reporter())
    assert found.mesh == {"data": 4, "spatial": 2}
    assert found.num_hosts == 2
    traffic = found.traffic
    assert set(traffic.between_slices) == {"all-reduce"}
    # Every chip sends the statistics, and the parts of small kernels fill tiles of 128 lanes.
    expected, sent = traffic.expected_reductions, traffic.between_slices["all-reduce"]["bytes"]
    assert expected.gradients + 4 * expected.batch_norm_sums < sent < 3 * expected.total
    assert (traffic.gathered_activations["count"], traffic.gathered_parameters["count"]) == (0, 0)
    assert traffic.halo["count"] > 0
    assert found.estimate.network > 0


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None,
    reason="jax_cuda13_plugin, the compiler for GPUs, is not installed",
)
def test_a_plan_for_gpus_needs_none():
    found = plan(small_config(), "h100:2x2", reporter=Reporter())
    assert found.mesh == {"data": 4, "spatial": 1}
    assert (found.num_hosts, found.topology.num_slices) == (2, 2)
    assert found.step.fits
    reduced = sum(found.traffic.reductions[:2])
    assert reduced == pytest.approx(found.traffic.expected_reductions.total, rel=0.02)
    assert found.traffic.gathered_activations["count"] == 0
    # The compiler makes elementwise kernels of some depthwise convolutions.
    assert 0.7 < found.flops_per_chip / found.analytic_flops_per_chip < 1.5
    assert {"convolution", "kernel gradient", "layout change", "collective"} <= set(found.kernels)
    assert found.vmem_traffic_per_chip == 0
    moved = sum(each.bytes for each in found.kernels.values())
    assert moved == found.hbm_traffic_per_chip
    assert found.largest_batch.images > 2
