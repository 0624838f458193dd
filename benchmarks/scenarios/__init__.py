"""What a call costs in situations, not sizes: one file a scenario, each `python -m benchmarks NAME`.

A scenario's `measure(settings)` gives a `Found` (`result.py`): rows of a table, verdicts, bars of a picture. `command.py` runs it, keeps it as
JSON and shows it.
"""
