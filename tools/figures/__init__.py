"""The figures of the theory pages, one module per chapter; see `tools.pictures`."""
