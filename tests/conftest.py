import os
from importlib.metadata import version

# Most of a test's time is compilation. Tests run on all cores, so one thread compiles a program;
# LLVM leaves out what makes programs quick, not what makes them right; and kernels are written the
# older way, where jaxlib has it (to 0.10): half as long to compile, twice as long to run. XLA's own
# passes, which decide what is fused and kept, stay. Flags that are given come last, so they win:
# XLA_FLAGS="--xla_backend_optimization_level=3 --xla_cpu_use_fusion_emitters=true" tests what users
# run.
ours = "--xla_cpu_parallel_codegen_split_count=1 --xla_backend_optimization_level=0"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    ours += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{ours} {os.environ.get('XLA_FLAGS', '')}"

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_enable_compilation_cache", False)  # a test runs by what it compiled


@pytest.fixture
def single_precision():
    """As in a session that does not ask for float64."""
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", True)
