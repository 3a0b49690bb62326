"""Tables of DeepLab v3+ (arXiv 1802.02611)."""
