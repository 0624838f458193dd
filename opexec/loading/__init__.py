"""From the arguments of `opexec.load` to a model: what was asked for, what a file holds, and starting its worker."""
