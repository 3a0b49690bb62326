"""Tables that no paper has: what its tables suggest, asked of small data."""
