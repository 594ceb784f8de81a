"""The page of the laboratory, and its place in the report."""
