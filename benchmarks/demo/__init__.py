"""One process reads the text in a picture with one model, in two workers whose packages cannot live together and in process.

``python -m benchmarks.demo`` (or ``make demo``) does everything from downloading the model to the table.
"""
