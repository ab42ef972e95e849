"""TAS sockets: TCP acceleration as a service."""

__version__ = "0.1.0"
