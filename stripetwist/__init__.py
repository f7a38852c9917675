"""One TCP stream, or many, striped over a bundle of TLS connections."""

__version__ = "0.1.0"
