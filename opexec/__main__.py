"""``python -m opexec``: the same as the command `opexec`."""

from .cli import main

if __name__ == "__main__":
    main()
