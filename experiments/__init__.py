"""Tables of the DeepLab papers as data, and programs that run their rows and compare models."""
