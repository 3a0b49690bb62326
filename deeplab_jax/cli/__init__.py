"""The commands of `deeplab-jax`: each parses its flags, calls the library and prints results."""
