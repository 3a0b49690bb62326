"""Training recipes, one per file: `get_config(arguments)` returns the config of a recipe."""
