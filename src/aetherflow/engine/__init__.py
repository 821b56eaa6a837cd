"""Walks a planned flow; knows no node and no backend by name."""
