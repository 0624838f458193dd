"""Models that other processes of the same user call: who has one shares it under a name, and others attach to that name.

`shared` and `listener` are the owner's side: a Unix socket for each name, at which processes ask to be let in. `attached` and `client` are
the other side. Between them passes only the acquaintance: the owner hands a client one end of a socketpair whose other end it has sent to the
worker, and from then on the two talk directly (`workers/clients.py`), over memory that the client makes.
"""
