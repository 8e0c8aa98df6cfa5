"""How setuptools builds the compiled sweeps, where it can."""

from importlib.util import find_spec
from pathlib import Path

from setuptools.command.build_ext import build_ext


class BuildSweeps(build_ext):
    """With the headers of XLA's foreign function interface, which jaxlib brings along."""

    def build_extension(self, ext):
        """Compile; a failure is a warning, as the extension is optional."""
        jaxlib = find_spec("jaxlib")
        if jaxlib is not None and jaxlib.origin is not None:
            ext.include_dirs.append(str(Path(jaxlib.origin).parent / "include"))
        super().build_extension(ext)

    def get_export_symbols(self, ext):
        """None of Python's: it is no module but a library of handlers."""
        return ext.export_symbols
