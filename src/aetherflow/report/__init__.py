"""Telemetry as a page of its own, and as files that other viewers open."""
