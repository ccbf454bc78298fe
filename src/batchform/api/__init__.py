"""batchform from Python: the commands as methods of `Project`, their results as values. See docs/python.md."""
