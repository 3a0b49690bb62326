"""Config changes, initial weights and notes of the diagnostic tables on frozen features."""

from experiments.table import Training

# These features represent the color of each pixel, which is the cue of `diagnostic_rare`.
BEFORE = Training("diagnostics:task=rare", {"model.output_stride": 8})
FROZEN = {
    "model.output_stride": 8,
    "training.init_scope": "backbone",
    "optimizer.multipliers.backbone": 0.0,
}
NOTES = (
    "The kernels of the backbone are not trained, so that only the head can learn to use context. "
    "All rows start from the backbone of a network that was trained on `diagnostic_rare` with the "
    "same seed, so prepare both datasets."
)
