"""The call itself: plain, through opexec in process, and through opexec in a worker."""
