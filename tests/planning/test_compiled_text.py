"""A compiled program's text: what runs how often, what it computes and sends."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeplab_jax.planning import hlo
from deeplab_jax.planning.collectives import (
    axes_joined,
    find_collectives,
    read_groups,
    read_pairs,
    totals,
)

PROGRAM = hlo.parse(pathlib.Path(__file__).with_name("program.txt").read_text())
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
    assert arrays == (hlo.Array("f32", (6,)),) * 2
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


def test_flops_of_later_rounds_leave_out_products_with_padding():
    # 8·3 pairs of output and tap along an axis, of which one at either end meets padding.
    convolution = 2 * 4 * (8 * 3 - 2) ** 2 * 6 * 6
    assert hlo.computation_flops(PROGRAM.computations["fused_convolution"]) == convolution
    assert hlo.computation_flops(PROGRAM.computations["main.7"]) == 2 * 4 * 4 * 10
    assert hlo.flops_in_later_rounds(PROGRAM) == 4 * convolution


def test_a_round_touches_one_entry_of_what_is_stacked():
    whole = 2 * 4 * 8 * 8 * 6
    edge = 2 * 4 * 8 * 6
    fusion = 2 * whole + 2 * 3 * 3 * 6 * 6 + 4
    slicing = whole + edge
    sending = 3 * edge + 8 + edge + 2 * edge + 8
    sums = 4 * 6 * 4
    assert hlo.bytes_in_later_rounds(PROGRAM) == 4 * (fusion + slicing + sending + sums)


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, to_apply=%add", [[0, 1], [2, 3]]),
        ("replica_groups={}, to_apply=%add", []),
        ("replica_groups=[2,2]<=[4], a={1}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), a={1}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'b'}, x", [[0, 1], [2, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2,'c'=1] {'a','c'}, x", [[0, 2], [1, 3]]),
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
    counted = hlo.computation_flops(program.computations[program.entry])
    assert counted == lowered.cost_analysis()["flops"]


def test_trip_counts_of_a_compiled_scan_are_read():
    """The count of rounds is where XLA puts it today."""

    def repeat(kernels, x):
        return jax.lax.scan(lambda x, kernel: (jnp.tanh(x @ kernel), None), x, kernels)[0]

    compiled = jax.jit(repeat).lower(np.zeros((7, 5, 5), np.float32), np.zeros((3, 5))).compile()
    program = hlo.parse(compiled.as_text())
    assert max(program.runs().values()) == 7
