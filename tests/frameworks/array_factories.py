"""Factories of what is the same with the arrays of any framework, loaded as ``array_factories.py:multiplying``. Python >= 3.7."""


def multiplying():
    def model(x):
        y = x
        for _ in range(5):
            y = y @ x
        return y

    return model
