"""Diagnostic tables, which test claims of the papers on synthetic images."""
