"""One table a file, each with a `TABLE`."""
