"""Tables of MobileNetV2 (arXiv 1801.04381)."""
