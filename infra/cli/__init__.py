"""The command line: one module per group of commands, `main` as the entry point."""

from headrace.infra.cli.app import main

__all__ = ["main"]
