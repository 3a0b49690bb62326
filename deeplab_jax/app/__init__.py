"""A page to drop images on, and its HTTP interface."""
