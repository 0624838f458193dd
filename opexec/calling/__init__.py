"""One call, from the user's arrays to a record and from a record to the user's arrays; blocking, submitted, or from an event loop."""
