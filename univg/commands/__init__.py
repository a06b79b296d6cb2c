"""The subcommands of ``python -m univg``, one module each."""
