"""The `faas` command. Each noun has a file; what is heavy to import is imported by the command that needs it."""
