"""Decisions from exported telemetry; nothing here needs the engine or the SDK."""
