"""Tables of the DeepLab papers as data, and programs that run the table rows or compare models."""
