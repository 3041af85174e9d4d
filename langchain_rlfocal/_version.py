"""The package's version, in one place for code that must not import the package's metadata."""

__version__ = "0.1.0"
