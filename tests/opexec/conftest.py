"""What the tests here share with others."""

from tests.loaded import gate

__all__ = ["gate"]
