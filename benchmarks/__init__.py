"""Comparisons with other code, one module per cost centre: `make bench`, or `python -m benchmarks --help`.

    gate       both sides compute the same thing, or the run fails and says what differed
    measure    blocks of ours, theirs, theirs, ours in one process on the same tensors and seeds
    record     the median of the per-block ratios theirs / ours with its bootstrap 95 % interval

Peers are installed at pinned versions into an environment of their own (`benchmarks/install`); nothing of theirs is copied here.
A peer that cannot be installed beside this project's pins is re-created from its published description, and its line says so.
"""
