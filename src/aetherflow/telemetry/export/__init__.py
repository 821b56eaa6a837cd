"""The way of spans and metrics out: samplers, queue, ledger, transports, files."""
