"""Wave propagators that `bench_peers.py` compares: one tool a file.

Each file has ``VARIANTS``, the ways in which the tool remembers the past, and
``build(case, variant)``, which returns two functions of nothing: one runs the shot and returns its
data ``[step, receiver]``, the other returns the gradient of half the squared data by the speed,
``[*case.shape]``.
"""
