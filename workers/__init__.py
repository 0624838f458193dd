"""The model's side: what runs in the foreign interpreter. Python >= 3.7, standard library, numpy and msgpack.

Imported as `opexec.workers`; in a worker `bootstrap` makes that name and `opexec.ipc` importable, and nothing else of opexec.
"""
