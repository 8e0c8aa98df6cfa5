"""How setuptools builds the compiled sweeps, where it can."""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile

from setuptools.command.build_ext import build_ext


class BuildSweeps(build_ext):
    """With the headers of XLA's foreign function interface, which jaxlib brings along."""

    def finalize_options(self):
        """Both libraries at once, where there are two cores."""
        super().finalize_options()
        self.parallel = self.parallel or True

    def build_extension(self, ext):
        """Compile; a failure is a warning, as the extension is optional.

        The library bears a digest of its sources. One beside them that bears the same is taken as
        it is: to install once more with other extras need not take two minutes.
        """
        folder = Path(ext.sources[0]).parent
        sources = sorted([*folder.glob("*.cc"), *folder.glob("*.h")])  # as `solvers.native` does
        digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
        stamp = digest.hexdigest()
        built, wanted = Path(self.get_ext_filename(ext.name)), Path(self.get_ext_fullpath(ext.name))
        if built.exists() and stamp.encode() in built.read_bytes():
            if built.resolve() != wanted.resolve():
                wanted.parent.mkdir(parents=True, exist_ok=True)
                copyfile(built, wanted)
            return
        ext.depends = [str(source) for source in sources]
        jaxlib = find_spec("jaxlib")
        if jaxlib is not None and jaxlib.origin is not None:
            ext.include_dirs.append(str(Path(jaxlib.origin).parent / "include"))
        ext.define_macros.append(("DIFFSIM_SOURCES", f'"{stamp}"'))
        super().build_extension(ext)

    def get_export_symbols(self, ext):
        """None of Python's: it is no module but a library of handlers."""
        return ext.export_symbols
