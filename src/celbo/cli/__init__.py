"""The command line: ``celbo train``, ``embed``, ``info``, ``demo``. Nothing heavy is imported before a command runs."""

from .app import app, main

__all__ = ["app", "main"]
