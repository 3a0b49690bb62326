"""Our networks and our input pipeline beside other codebases."""
