"""The command line: one thin module a command, dispatched by `aetherflow.cli.main`."""
