"""The one place where celbo's version is written."""

__version__ = "0.1.0"
