"""What `python -m zoo` does: a function for each verb, from its options to its last line."""
