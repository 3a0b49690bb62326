"""Channels that go one by one, against least squares on the samples themselves."""

import numpy as np
import pytest

from deeplab_jax.compression.channel_scores import Moments, elimination_costs
from deeplab_jax.compression.pruning import compensated
from deeplab_jax.compression.pruning_graph import ChannelGraph, Layer

CHANNELS, PIXELS, OUTPUTS = 7, 400, 3


@pytest.fixture
def samples():
    """Channels that hang together, [PIXELS, CHANNELS], and who reads them, [CHANNELS, OUTPUTS]."""
    random = np.random.default_rng(0)
    mixing = random.normal(size=(CHANNELS, CHANNELS))
    return random.normal(size=(PIXELS, CHANNELS)) @ mixing + 3, random.normal(
        size=(CHANNELS, OUTPUTS)
    )


def lost(channels, kernel, staying):
    """Returns the variance of the outputs that channels which stay do not tell."""
    ones = np.ones((len(channels), 1))
    told = np.hstack([channels[:, staying], ones])
    wanted = channels @ kernel
    solution, *_ = np.linalg.lstsq(told, wanted, rcond=None)
    return np.square(wanted - told @ solution).sum() / len(channels)


def test_costs_are_those_of_refitting_all_that_stay(samples):
    channels, kernel = samples
    covariance = np.cov(channels.T, bias=True)
    costs = elimination_costs(covariance, kernel @ kernel.T, np.ones(CHANNELS, bool))
    staying, before, worst = np.ones(CHANNELS, bool), 0.0, 0.0
    for channel in np.argsort(costs, kind="stable"):
        # No other one would have been cheaper.
        after = {
            other: lost(channels, kernel, staying & (np.arange(CHANNELS) != other))
            for other in np.flatnonzero(staying)
        }
        assert after[channel] == pytest.approx(min(after.values()))
        worst = max(worst, after[channel] - before)
        assert costs[channel] == pytest.approx(worst)
        staying[channel], before = False, after[channel]


def test_copied_and_constant_channels_have_almost_no_cost(samples):
    channels, kernel = samples
    channels[:, 0] = 5
    free = np.array([True] * 4 + [False] * 3)
    # A copy but for a little noise, as the inverse wants it.
    channels[:, 1] = channels[:, 6] + 1e-5 * np.random.default_rng(1).normal(size=PIXELS)
    costs = elimination_costs(np.cov(channels.T, bias=True), kernel @ kernel.T, free)
    assert costs[0] == 0
    assert 0 < costs[1] < 1e-8 < costs[2:4].min()
    assert not costs[4:].any()


@pytest.mark.parametrize("normalised", [False, True])
def test_removed_channels_are_predicted_from_kept_channels(samples, normalised):
    channels, kernel = samples
    mixed = channels[:, :3] @ np.array([0.5, -1.0, 2.0]) + 4
    channels[:, 6] = mixed
    everything = np.arange(CHANNELS)
    outputs = everything[:OUTPUTS] + CHANNELS
    graph = ChannelGraph({"reader": Layer(everything, outputs, False, 1)}, frozenset(), 10)
    variables = {"params": {"reader": {"kernel": kernel[None, None], "bias": np.ones(OUTPUTS)}}}
    if normalised:
        variables["params"]["reader"].pop("bias")
        variables["batch_stats"] = {"reader": {"norm": {"mean": np.ones(OUTPUTS)}}}
    moments = Moments(channels.mean(0), np.cov(channels.T, bias=True), 10**9)
    kept = np.arange(10) != 6
    found = compensated(graph, variables, {"reader": moments}, kept)
    reader = found["params"]["reader"]
    staying = channels[:, :6] @ reader["kernel"][0, 0, :6]
    if normalised:
        constant = -found["batch_stats"]["reader"]["norm"]["mean"]
        expected = channels @ kernel - 1
    else:
        constant, expected = reader["bias"], channels @ kernel + 1
    # The least shrinkage is all that is between them.
    np.testing.assert_allclose(staying + constant, expected, atol=0.02 * np.abs(expected).max())
