"""Tables of DeepLab v2 (arXiv 1606.00915)."""
