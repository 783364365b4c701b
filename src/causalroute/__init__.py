"""causalroute: find shortcuts in text + image data, train past them, and prove it with error bars."""

__version__ = "0.1.0"
