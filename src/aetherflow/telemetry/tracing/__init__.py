"""Spans at a fraction of the SDK's cost, in a provider of the SDK."""
