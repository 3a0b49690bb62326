"""Recipes, one a file: `get_config(arguments)` says what differs from deeplab_jax/config.py."""
