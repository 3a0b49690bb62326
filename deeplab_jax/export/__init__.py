"""Trained networks in the formats of other runtimes: StableHLO, ONNX and TFLite."""
