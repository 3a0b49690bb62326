"""Structured pruning: which channels hang together, which go, and that the rest is untouched."""

import dataclasses

import numpy as np
import pytest
from flax import traverse_util
from small_models import SIZE, describe, images, logits, stored

from deeplab_jax import checkpointing, inference
from deeplab_jax.checkpointing import StoredModel
from deeplab_jax.compression.channel_scores import CRITERIA, SCORES, measure
from deeplab_jax.compression.pruning import (
    choose,
    compensated,
    cut,
    narrower_widths,
    prune_channels,
)
from deeplab_jax.compression.pruning_graph import channel_graph
from deeplab_jax.errors import DeepLabError
from deeplab_jax.models.output_stride import at_output_stride
from deeplab_jax.models.summary import summarize


def random_choice(graph, share=0.4):
    """Keeps a random part of the channels of every layer that may lose some."""
    random = np.random.default_rng(0)
    kept = np.ones(graph.num_channels, bool)
    for layer in graph.layers.values():
        if not layer.depthwise and not graph.fixed & set(map(int, layer.outputs)):
            kept[layer.outputs[1:]] = random.random(len(layer.outputs) - 1) > share
    return kept


def unread(graph, variables, kept):
    """Returns variables in which nobody reads the channels that go."""
    flat = dict(traverse_util.flatten_dict(variables))
    kernels = {"/".join(path[1:-1]): path for path in flat if path[-1] == "kernel"}
    stays = np.append(kept, True)
    for path, layer in graph.layers.items():
        if not layer.depthwise:
            kernel = kernels[path]
            flat[kernel] = flat[kernel] * stays[layer.inputs][:, None]
    return traverse_util.unflatten_dict(flat)


def narrowed(model, graph, variables, kept):
    pruned = cut(graph, variables, kept)
    widths = narrower_widths(model, graph, kept, pruned)
    description = dataclasses.replace(
        model.description, overrides=model.description.overrides | {"widths": widths}
    )
    return StoredModel(description.create_model(), pruned, description)


def assert_same(found, expected):
    """Sums of fewer terms round otherwise, in proportion to the largest of them."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v2",
        *(
            pytest.param(n, marks=SLOW)
            for n in ("mobilenet_v3", "resnet", "convnext", "efficientnet", "mobilenet_v4")
        ),
    ],
)
def test_unused_channels_are_pruned_exactly(name):
    model = stored(name)
    graph = channel_graph(model.model, SIZE)
    kept = random_choice(graph)
    variables = unread(graph, model.variables, kept)
    whole = dataclasses.replace(model, variables=variables)
    small = narrowed(model, graph, variables, kept)
    assert_same(logits(small, images(2)), logits(whole, images(2)))
    full, less = (summarize(each.model, SIZE).macs for each in (whole, small))
    assert less == graph.macs(kept) < 0.85 * full == 0.85 * graph.macs(np.ones_like(kept))


def test_channels_in_groups_are_refused():
    with pytest.raises(
        DeepLabError, match=r"conv2 is a grouped convolution with 8 channels per group"
    ):
        channel_graph(stored("regnet").model, SIZE)


def test_channels_of_sums_and_outputs_are_not_pruned():
    graph = channel_graph(stored("resnet").model, SIZE)
    free = {
        path
        for path, layer in graph.layers.items()
        if not graph.fixed & set(map(int, layer.outputs))
    }
    assert "backbone/block2/unit_1/conv1" in free
    assert "aspp/rate_6" in free
    for path in ("classifier", "auxiliary/classifier", "backbone/block2/unit_1/conv2"):
        assert path in graph.layers
        assert path not in free


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_hidden_channels_of_a_convnext_can_be_pruned(dtype):
    """In bfloat16, the GELU after the expansion is computed by another operation."""
    graph = channel_graph(describe("convnext", dtype=dtype).create_model(), SIZE)
    hidden = graph.layers["backbone/stage_1/block_1/expand"].outputs
    assert graph.fixed.isdisjoint(hidden.tolist())


@pytest.mark.parametrize(
    "criterion", [CRITERIA[0], *(pytest.param(name, marks=SLOW) for name in CRITERIA[1:])]
)
def test_multiply_adds_come_down_to_the_share(criterion):
    model = stored("mobilenet_v2")
    small = prune_channels(model, [images(2)], 0.6, size=SIZE, criterion=criterion, multiple=1)
    share = summarize(small.model, SIZE).macs / summarize(model.model, SIZE).macs
    assert 0.57 < share <= 0.6
    assert small.description.source["pruned"]["macs"] == pytest.approx(share)


@SLOW
def test_widths_are_multiples():
    small = prune_channels(stored("mobilenet_v2"), [images(1)], 0.7, size=SIZE, multiple=8)
    assert all(channels % 8 == 0 for _, channels in small.description.overrides["widths"])


@SLOW
def test_channels_without_importance_go_first():
    model = stored("mobilenet_v2")
    graph = channel_graph(model.model, SIZE)
    kept = random_choice(graph, share=0.3)
    variables = unread(graph, model.variables, kept)
    whole = dataclasses.replace(model, variables=variables)
    share = graph.macs(kept) / graph.macs(np.ones_like(kept))
    small = prune_channels(whole, [images(2)], share, size=SIZE, multiple=1)
    assert_same(logits(small, images(2)), logits(whole, images(2)))


@SLOW
def test_a_copy_of_another_channel_goes_without_a_trace():
    """Whoever reads it takes the other one."""
    model = stored("resnet")
    graph = channel_graph(model.model, SIZE)
    flat = dict(traverse_util.flatten_dict(model.variables))
    copied = [path for path in flat if "block1/unit_1" in "/".join(path) and "conv1" in path]
    assert len(copied) == 5
    for path in copied:
        # Every third channel is the one before it, and no other.
        flat[path] = np.array(flat[path])
        flat[path][..., 2::3] = flat[path][..., 1:-1:3]
    kept = np.ones(graph.num_channels, bool)
    kept[graph.layers["backbone/block1/unit_1/conv1"].outputs[2::3]] = False
    whole = dataclasses.replace(model, variables=traverse_util.unflatten_dict(flat))
    moments = measure(whole.model, whole.variables, [images(8, seed) for seed in range(2, 6)])
    moved = compensated(graph, whole.variables, moments, kept)
    expected = logits(whole, images(2, seed=1))
    small = logits(narrowed(model, graph, moved, kept), images(2, seed=1))
    bare = logits(narrowed(model, graph, whole.variables, kept), images(2, seed=1))
    # As near as the shrinkage lets it: some 60 pixels a channel were measured.
    assert np.abs(small - expected).max() < 0.1 * np.abs(bare - expected).max()


@SLOW
def test_a_constant_channel_moves_into_the_biases():
    model = stored("mobilenet_v2")
    graph = channel_graph(model.model, SIZE)
    flat = dict(traverse_util.flatten_dict(model.variables))
    kept = np.ones(graph.num_channels, bool)
    for unit in ("layer_3", "layer_9"):
        scale = ("params", "backbone", unit, "depthwise", "norm", "scale")
        flat[scale] = flat[scale] * (np.arange(len(flat[scale])) % 3 > 0)
        kept[graph.layers[f"backbone/{unit}/expand"].outputs[::3]] = False
    whole = dataclasses.replace(model, variables=traverse_util.unflatten_dict(flat))
    moments = measure(whole.model, whole.variables, [images(1)])
    moved = compensated(graph, whole.variables, moments, kept)
    small = narrowed(model, graph, moved, kept)
    expected = logits(whole, images(2, seed=1))
    assert_same(logits(small, images(2, seed=1)), expected)
    bare = logits(narrowed(model, graph, whole.variables, kept), images(2, seed=1))
    assert np.abs(bare - expected).max() > 0.01


@SLOW
def test_a_pruned_model_loads_and_changes_its_output_stride(tmp_path):
    small = prune_channels(stored("mobilenet_v2"), [images(1)], 0.6, size=SIZE, multiple=1)
    checkpointing.write_model(tmp_path / "small", small.description, small.variables)
    read = checkpointing.read_model(tmp_path / "small")
    np.testing.assert_array_equal(logits(read, images(1)), logits(small, images(1)))
    assert inference.load(tmp_path / "small")(images(1)[0]).shape == SIZE
    finer, _ = at_output_stride(read.model, read.variables, 8)
    names = [path for path, _ in finer.architecture.widths]
    assert any("rate_4" in name for name in names)
    assert not any("rate_3" in name for name in names)


def test_illegal_wishes_are_refused():
    model = stored("mobilenet_v2")
    with pytest.raises(DeepLabError, match="must be in"):
        prune_channels(model, [images(1)], 1.5, size=SIZE)
    with pytest.raises(DeepLabError, match="did you mean 'norm'"):
        prune_channels(model, [images(1)], 0.5, size=SIZE, criterion="nrom")
    with pytest.raises(DeepLabError, match="cannot be reached"):
        prune_channels(model, [images(1)], 0.02, size=SIZE)
    described = describe("mobilenet_v2", quantization="int8")
    integers = StoredModel(described.create_model(), {}, described)
    with pytest.raises(DeepLabError, match="prune first"):
        prune_channels(integers, [], 0.5, size=SIZE)


def test_channels_with_the_lowest_scores_are_pruned():
    graph = channel_graph(stored("mobilenet_v2").model, SIZE)
    scores = np.random.default_rng(0).random(graph.num_channels) + 0.1
    layer = graph.layers["backbone/layer_10/expand"]
    scores[layer.outputs] *= 3
    kept = choose(graph, scores, 0.6)
    others = np.concatenate(
        [graph.layers[f"backbone/layer_{number}/expand"].outputs for number in (8, 9, 11, 12)]
    )
    assert kept[layer.outputs].mean() > kept[others].mean() + 0.2
    for channels in (layer.outputs, others):
        assert scores[channels][~kept[channels]].max() < scores[channels][kept[channels]].min()


GATE = "squeeze_excitation/excite"


def gated_units(graph):
    """Returns the paths of the units with an expansion and a gate, each with a final slash."""
    units = [path.removesuffix(GATE) for path in graph.layers if path.endswith(GATE)]
    return [unit for unit in units if f"{unit}expand" in graph.layers]


@pytest.mark.parametrize("criterion", ["batch_norm_scale", "norm"])
def test_the_scales_of_a_layer_and_of_its_gate_do_not_change_the_scores(criterion):
    model = stored("mobilenet_v3")
    graph = channel_graph(model.model, SIZE)
    flat = traverse_util.flatten_dict(model.variables, sep="/")
    before = SCORES[criterion](graph, model.model, model.variables, {})
    assert gated_units(graph)
    for layer, gate in ((100, 1), (1, 100), (0.01, 0.01)):
        factors = {"expand/kernel": layer, "depthwise/norm/scale": layer, f"{GATE}/kernel": gate}
        scaled = dict(flat)
        for unit in gated_units(graph):
            for name, factor in factors.items():
                scaled[f"params/{unit}{name}"] = flat[f"params/{unit}{name}"] * factor
        variables = traverse_util.unflatten_dict(scaled, sep="/")
        after = SCORES[criterion](graph, model.model, variables, {})
        np.testing.assert_allclose(after, before, rtol=1e-5)


def test_the_norm_of_a_gated_channel_is_that_of_the_kernel_that_computes_it():
    model = stored("mobilenet_v3")
    graph = channel_graph(model.model, SIZE)
    scores = SCORES["norm"](graph, model.model, model.variables, {})
    flat = traverse_util.flatten_dict(model.variables["params"], sep="/")
    for unit in gated_units(graph):
        norms = np.abs(flat[f"{unit}expand/kernel"]).sum((0, 1, 2))
        found = scores[graph.layers[f"{unit}expand"].outputs]
        np.testing.assert_allclose(found, norms / norms.mean(), rtol=1e-5)


@pytest.mark.parametrize("name", ["mobilenet_v3", pytest.param("convnext", marks=SLOW)])
def test_layers_without_batch_normalization_are_ranked_by_the_norm_of_their_kernels(name):
    model = stored(name)
    graph = channel_graph(model.model, SIZE)
    scores = SCORES["batch_norm_scale"](graph, model.model, model.variables, {})
    flat = traverse_util.flatten_dict(model.variables["params"], sep="/")
    scaled = {
        int(channel)
        for path, layer in graph.layers.items()
        if f"{path}/norm/scale" in flat
        for channel in layer.outputs
    }
    without = {
        path: layer.outputs
        for path, layer in graph.layers.items()
        if (graph.fixed | scaled).isdisjoint(layer.outputs.tolist())
    }
    assert without
    for path, outputs in without.items():
        norms = np.abs(flat[f"{path}/kernel"]).sum((0, 1, 2))
        np.testing.assert_allclose(scores[outputs], norms / norms.mean(), rtol=1e-5)


def test_layers_with_folded_batch_normalization_are_ranked_by_the_norm_of_their_kernels():
    model = stored("mobilenet_v2")
    graph = channel_graph(model.model, SIZE)
    flat = traverse_util.flatten_dict(model.variables)
    for path in [path for path in flat if path[-2:] == ("norm", "scale")]:
        flat[path] = np.ones_like(flat[path])
    folded = traverse_util.unflatten_dict(flat)
    expected = SCORES["norm"](graph, model.model, folded, {})
    found = SCORES["batch_norm_scale"](graph, model.model, folded, {})
    np.testing.assert_array_equal(found, expected)


@SLOW
@pytest.mark.parametrize("criterion", ["batch_norm_scale", "norm"])
def test_a_layer_s_own_scale_does_not_protect_it(criterion):
    model = stored("mobilenet_v2")
    flat = dict(traverse_util.flatten_dict(model.variables))
    for path in list(flat):
        if path[1:4] == ("backbone", "layer_10", "expand") and path[-1] in ("kernel", "scale"):
            flat[path] = flat[path] * 1000
    loud = dataclasses.replace(model, variables=traverse_util.unflatten_dict(flat))
    widths = [
        prune_channels(each, [images(1)], 0.6, size=SIZE, criterion=criterion, multiple=1)
        for each in (model, loud)
    ]
    assert widths[0].model.architecture.widths == widths[1].model.architecture.widths
