"""How setuptools builds the compiled sweeps, where it can."""

import hashlib
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
        sources = sorted([*ext.sources, *ext.depends])  # as `solvers.native` reads them
        digest = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources))
        ext.define_macros.append(("DIFFSIM_SOURCES", f'"{digest.hexdigest()}"'))
        super().build_extension(ext)

    def get_export_symbols(self, ext):
        """None of Python's: it is no module but a library of handlers."""
        return ext.export_symbols
