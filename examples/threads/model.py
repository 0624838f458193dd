"""Sums up what it is given, in pure Python: work that holds the interpreter's lock."""


def checksum():
    def model(values):
        total = 0
        for value in values.tolist():
            total = (31 * total + value) % 1_000_003
        return {"checksum": total}

    return model
