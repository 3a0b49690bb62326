"""Tables of DeepLab v1 (arXiv 1412.7062)."""
