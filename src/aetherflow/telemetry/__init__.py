"""Emits and reads telemetry; knows no node and no flow."""
