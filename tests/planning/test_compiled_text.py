"""A compiled program's text: what runs how often, what it computes and sends."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.planning import hlo, work
from deeplab_jax.planning.collectives import (
    axes_joined,
    between_slices,
    find_collectives,
    read_groups,
    read_pairs,
    totals,
    within_slices,
)


def text_of(name):
    """Returns the text of a program that lies beside this file."""
    return pathlib.Path(__file__).with_name(name).read_text()


PROGRAM = hlo.parse(text_of("program.txt"))
MESH = {"data": 4, "spatial": 2}


def test_loop_bodies_count_once_per_iteration():
    assert PROGRAM.runs() == {"main.7": 1, "condition": 1, "body": 5, "fused_convolution": 5}


@pytest.mark.parametrize(
    ("limit", "direction", "rounds"),
    [("constant(22)", "LT", 22), ("constant(22)", "GT", 1), ("parameter(1)", "LT", 1)],
)
def test_trip_counts_come_from_the_loop_condition(limit, direction, rounds):
    text = f"""
%condition (state: (s32[], f32[4])) -> pred[] {{
  %limit = s32[]{{:T(128)}} {limit}
  %state = (s32[]{{:T(128)}}, f32[4]{{0}}) parameter(0)
  %round = s32[]{{:T(128)}} get-tuple-element(%state), index=0
  ROOT %less = pred[]{{:T(512)}} compare(%round, %limit), direction={direction}, metadata={{}}
}}

%body (state.1: (s32[], f32[4])) -> (s32[], f32[4]) {{
  ROOT %state.1 = (s32[]{{:T(128)}}, f32[4]{{0}}) parameter(0)
}}

ENTRY %main (start: (s32[], f32[4])) -> (s32[], f32[4]) {{
  %start = (s32[]{{:T(128)}}, f32[4]{{0}}) parameter(0)
  ROOT %loop = (s32[], f32[4]{{0}}) while(%start), condition=%condition, body=%body, metadata={{}}
}}
"""
    assert hlo.parse(text).runs()["body"] == rounds


def test_layouts_and_comments_are_not_part_of_a_shape():
    arrays = PROGRAM.computations["body"]["statistics"].results
    assert arrays == (hlo.Array("f32", (6,), space=1),) * 2
    assert PROGRAM.computations["body"]["statistics"].operands == ("means", "squares")


def test_collectives_are_counted_by_kind_axis_and_round():
    found = {
        (each.kind, each.axes, each.times, each.bytes) for each in find_collectives(PROGRAM, MESH)
    }
    assert found == {
        ("collective-permute", ("spatial",), 5, 5 * 2 * 4 * 8 * 6),
        ("all-reduce", ("data", "spatial"), 5, 5 * 2 * 4 * 6),
        ("all-gather", ("spatial",), 1, 4 * 8 * 10),
        ("all-reduce", ("data",), 1, 2 * 5 * 3 * 3 * 6 * 6),
        ("all-reduce", ("data", "spatial"), 1, 4),
    }
    assert totals(find_collectives(PROGRAM, MESH))["all-reduce"]["count"] == 7


def test_flops_of_every_round_leave_out_products_with_padding():
    # 8·3 pairs of output and tap along an axis, of which one at either end meets padding.
    convolution = 2 * 4 * (8 * 3 - 2) ** 2 * 6 * 6
    assert work.total_flops(PROGRAM) == 5 * convolution + 2 * 4 * 4 * 10


def test_a_round_touches_one_entry_of_what_is_stacked():
    whole = 2 * 4 * 8 * 8 * 6
    edge = 2 * 4 * 8 * 6
    kernel = 2 * 3 * 3 * 6 * 6
    fusion = 2 * whole + kernel + 4
    slicing, sending = 2 * edge, 2 * edge
    converting, gathering = 3 * whole, 4 * (4 + 8) * 10
    multiplying, summing = 4 * (2 * 40 + 16), 5 * kernel + 4 * 3 * 3 * 6 * 6 + 4 + 4
    once = converting + gathering + multiplying + summing
    # The statistics are read from the main memory and written to the vector memory.
    assert work.memory_traffic(PROGRAM) == {
        work.MAIN_MEMORY: 5 * (fusion + slicing + sending + 2 * 6 * 4) + once,
        2: 5 * 2 * 4,
        work.VECTOR_MEMORY: 5 * 2 * 6 * 4,
    }


def test_an_update_in_place_writes_the_slice_alone():
    program = hlo.parse("""
%fused_update (all: f32[9,100], part: f32[100], row: s32[]) -> f32[9,100] {
  %all = f32[9,100]{1,0} parameter(0)
  %part = f32[100]{0} parameter(1)
  %row = s32[] parameter(2)
  %one = f32[1,100]{1,0} bitcast(%part)
  ROOT %updated = f32[9,100]{1,0} dynamic-update-slice(%all, %one, %row, %row)
}

ENTRY %main (all.1: f32[9,100], part.1: f32[100], row.1: s32[]) -> f32[9,100] {
  %all.1 = f32[9,100]{1,0} parameter(0)
  %part.1 = f32[100]{0:S(1)} parameter(1)
  %row.1 = s32[] parameter(2)
  ROOT %fusion = f32[9,100]{1,0} fusion(%all.1, %part.1, %row.1), kind=kLoop, calls=%fused_update
}
""")
    assert work.memory_traffic(program) == {work.MAIN_MEMORY: 400 + 4, work.VECTOR_MEMORY: 400}


# Calls of NVIDIA's libraries as XLA writes them, with the window of the forward convolution: 3×3,
# stride 2, padding 1, from 9×9 maps with 6 channels to 5×5 maps with 4 channels.
CALL = text_of("cudnn_call.txt")


@pytest.mark.parametrize(
    ("target", "operands", "result", "kind"),
    [
        ("convForward", "%maps, %kernel", "bf16[2,5,5,4]", "convolution"),
        ("convBackwardInput", "%outputs, %kernel", "bf16[2,9,9,6]", "input gradient"),
        ("convBackwardFilter", "%maps, %outputs", "bf16[4,3,3,6]", "kernel gradient"),
    ],
)
def test_a_convolution_and_its_gradients_have_the_same_products(target, operands, result, kind):
    program = hlo.parse(CALL.format(target=target, operands=operands, result=result))
    # Along an axis, 5 outputs meet 3 taps, of which the first and the last tap meet padding once.
    flops = 2 * (2 * 4 * 6) * (5 * 3 - 2) ** 2
    sizes = {"maps": 2 * 2 * 81 * 6, "kernel": 2 * 4 * 9 * 6, "outputs": 2 * 2 * 25 * 4}
    assert work.kernels(program) == {kind: work.Kernels(1, flops, sum(sizes.values()))}


def test_a_cublas_product_counts_its_contracted_axis():
    program = hlo.parse(text_of("cublas_call.txt"))
    moved = 4 * (40 * 7 + 9 * 7 + 40 * 9)
    assert work.kernels(program) == {"matrix product": work.Kernels(1, 2 * 40 * 9 * 7, moved)}


def test_a_collective_that_several_fusions_contain_counts_once():
    """The TPU compiler fuses an asynchronous gather with the operations that run meanwhile."""
    gather = (
        "all-gather(%shard), channel_id=62, dimensions={1}, use_global_device_ids=true, "
        "replica_groups=mesh['a'=1,'b'=8] {'b'}"
    )
    steps = "".join(
        f"""
%{name} (shard: bf16[22,17]) -> bf16[22,136] {{
  %shard = bf16[22,17]{{1,0}} parameter(0)
  ROOT %gathered = bf16[22,136]{{1,0:T(2,128)(2,1)S(1)}} {gather}
}}
"""
        for name in ("start", "step", "done")
    )
    text = f"""{steps}
ENTRY %main (kernel: bf16[22,17]) -> bf16[22,136] {{
  %kernel = bf16[22,17]{{1,0}} parameter(0)
  %a = bf16[22,136]{{1,0}} fusion(%kernel), kind=kCustom, calls=%start
  %b = bf16[22,136]{{1,0}} fusion(%kernel), kind=kOutput, calls=%step
  ROOT %c = bf16[22,136]{{1,0}} fusion(%kernel), kind=kCustom, calls=%done
}}
"""
    found = find_collectives(hlo.parse(text), {"data": 8, "spatial": 1})
    assert [(each.kind, each.times, each.bytes) for each in found] == [("all-gather", 1, 5984)]


def test_transfers_between_slices_are_counted_apart_from_the_sums_within():
    program = hlo.parse(text_of("two_slices.txt"))
    found = find_collectives(program, {"data": 8, "spatial": 1})
    assert between_slices(found, 4) == {"all-reduce": {"count": 1, "bytes": 4 * 256 * 512}}
    (joined,) = within_slices(found)
    assert (joined.kind, joined.bytes) == ("all-reduce", 4 * 256 * 512)
    assert within_slices(found[:1] + found[2:]) == found[:1] + found[2:]


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups={}, to_apply=%add", []),
        ("replica_groups=[2,2]<=[4], a={1}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), a={1}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, x", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=1] {'a','c'}, x", [[0, 2], [1, 3]]),
        (
            "replica_groups=mesh['a'=2,'b'=3], device_ids=([3,2]T(1,0)) {'a'}, x",
            [[0, 1], [2, 3], [4, 5]],
        ),
        ("dimensions={0}", None),
    ],
)
def test_replica_groups_in_each_of_their_forms(attributes, groups):
    assert read_groups(attributes) == groups


def test_a_form_of_groups_that_is_not_known_is_not_guessed_at():
    with pytest.raises(ValueError, match="unknown form of replica groups"):
        read_groups("replica_groups=mesh['a'=4] {'a':(1)2}")


@pytest.mark.parametrize(
    ("groups", "axes"),
    [
        ([], ("data", "spatial")),
        ([[0, 1], [2, 3], [4, 5], [6, 7]], ("spatial",)),
        ([[0, 2, 4, 6], [1, 3, 5, 7]], ("data",)),
        ([[0, 3]], ("data", "spatial")),
        ([[0], [1]], ()),
    ],
)
def test_replica_groups_map_to_mesh_axes(groups, axes):
    assert axes_joined(groups, MESH) == axes


def test_pairs_of_a_permutation():
    assert read_pairs("channel_id=1, source_target_pairs={{0,1},{1,0}}, x={}") == [[0, 1], [1, 0]]
    assert read_pairs("channel_id=1") is None


@pytest.mark.parametrize(
    ("stride", "rate", "groups", "spread"),
    [(1, 1, 1, 1), (2, 1, 1, 1), (1, 3, 1, 1), (1, 2, 6, 1), (1, 1, 1, 2)],
)
def test_flops_are_those_that_xla_counts(stride, rate, groups, spread):
    """On a platform whose compiler leaves the convolution as it is."""
    inputs = np.zeros((2, 9, 7, 6), np.float32)
    kernel = np.zeros((3, 3, 6 // groups, 12), np.float32)

    def convolve(inputs, kernel):
        return jax.lax.conv_general_dilated(
            inputs,
            kernel,
            (stride, stride),
            [(rate, rate), (2, 0)],
            lhs_dilation=(spread, spread),
            rhs_dilation=(rate, rate),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    lowered = jax.jit(convolve).lower(inputs, kernel)
    program = hlo.parse(lowered.compiler_ir("hlo").as_hlo_module().to_string())
    counted = work.total_flops(program)
    assert counted == lowered.cost_analysis()["flops"]


def test_trip_counts_of_a_compiled_scan_are_read():
    """The count of rounds is where XLA puts it today."""

    def repeat(kernels, x):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]

    compiled = jax.jit(repeat).lower(np.zeros((7, 5, 5), np.float32), np.zeros((3, 5))).compile()
    program = hlo.parse(compiled.as_text())
    assert max(program.runs().values()) == 7
