"""What can go wrong between the two sides. The caller's side turns these into the errors that a user gets."""


class ProtocolError(Exception):
    """The other side sent or wrote something that breaks the protocol; nothing it says can be trusted any more."""


class PeerGone(Exception):
    """The other side has closed the connection, or died."""
