"""The command line: ``celbo train``, ``predict``, ``info``, ... Nothing heavy is imported before a command runs."""

from .app import app, main

__all__ = ["app", "main"]
