"""One module a command; see `opexec.cli`."""
