"""TFDS builders of the supported datasets and annotation formats, one per module."""
