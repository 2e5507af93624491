"""Clock, volume, request → is a run due, and which tick is it? Pure policies; the leader asks them."""
