"""Tables of the MobileNetV2 paper (arXiv 1801.04381)."""
