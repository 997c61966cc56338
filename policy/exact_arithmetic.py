"""How torch is to compute in this process: on so many threads and, on a GPU, in float32 throughout and the same bits each time.

torch lets convolutions on a GPU round to a mantissa of ten bits (TF32) unless told otherwise, and lets cuDNN choose kernels that add up in whatever
order is fastest. Then a resumed run would not end with the bits of one that never stopped, and the Fisher would be that of rounded numbers.
Products of matrices are float32 by torch's own default. bfloat16 is a setting of its own (`train.precision`).
"""

from __future__ import annotations

import torch


def set_arithmetic(threads: int) -> None:
    """For the whole process; no result on a CPU depends on it but by the number of threads."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
