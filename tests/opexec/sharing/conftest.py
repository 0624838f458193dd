"""What the tests here share with others."""

from tests.attaching import client, no_idle_clients, runtime
from tests.loaded import gate

__all__ = ["client", "gate", "no_idle_clients", "runtime"]
