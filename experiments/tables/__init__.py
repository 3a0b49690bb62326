"""Tables of the papers, one per file; each file defines a `TABLE`."""
