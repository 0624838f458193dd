"""One child process: how it starts, what it may have and see, what it prints, where it hangs and how it ends."""
