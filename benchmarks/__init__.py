"""Benchmarks against scvi-tools: each is one command, prints a table and appends rows to ``benchmarks/results.csv``.

``python -m benchmarks.step --peer PYTHON``, where ``PYTHON`` is the interpreter of an environment with
``scvi-tools==1.4.2`` (or
set ``CELBO_PEER_PYTHON``). Both tools run the same script, ``side.py``, in processes of their own, in turn on one
machine.
"""
