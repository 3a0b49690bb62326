"""Tables of DeepLab v3 (arXiv 1706.05587)."""
