"""One thread per test process: the tests run side by side, and torch's threads would wait for each other."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("reconverge", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("reconverge")
