"""Spans as OTLP, in protobuf and in JSON."""
