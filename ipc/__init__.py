"""What both sides of a call share: memory, rings, doorbells and the control socket, and nothing about models.

Imported as `opexec.ipc`, by the caller and, in the foreign interpreter, by the worker: Python >= 3.7, standard library, numpy and msgpack.
"""

#: Version of everything the two sides say to each other. A worker of another version is refused in the handshake.
PROTOCOL = 1

#: opexec's own version. Here, because both sides compare it and the worker never runs ``opexec/__init__.py``.
VERSION = "0.1.0"
