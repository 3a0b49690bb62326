"""The tables of the DeepLab papers as data, and programs that reproduce and compare them."""
