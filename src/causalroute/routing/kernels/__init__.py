"""The Triton backend: the one place of the package that needs Triton, imported when that backend is first used."""
