"""The HTTP side of the server: who may ask, what may be asked, and the form of the answers."""
