"""TFDS builders: one dataset a file."""
