"""TFDS builders: one data set a file."""
