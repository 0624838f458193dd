"""Other ways to call a model in another process, each used as somebody who knows it well would."""
