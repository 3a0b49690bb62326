"""Tables of experiments as data, and programs that run the rows of the tables or compare models."""
