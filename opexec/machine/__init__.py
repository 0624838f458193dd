"""What this machine has and allows: cores, control groups, devices, and what is wrong with it."""
