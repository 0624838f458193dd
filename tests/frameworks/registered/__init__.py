"""A package with a platform of its own, as the environment of somebody's model may have one."""
