"""The exact store of values, how it is published, and what reads it."""
