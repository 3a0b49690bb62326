"""Tables of the diagnostic tasks, with claims whose decision rules were fixed before any run."""
