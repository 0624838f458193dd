"""`python -m benchmarks results`: every benchmark in turn, and the page and the pictures that are made of what they stored.

`command.py` runs them, each as a command of its own, which stores JSON here; `page.py` writes RESULTS.md of it, `pictures.py` its SVGs.
"""
