"""Measurements of this code on the machine at hand."""
