"""Measurements of the code that users run. benchmarks/README.md has the rows, with dates and machines."""
