"""What this machine can do at best: the units in which everything else is measured."""
