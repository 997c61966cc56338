"""One thread per test process: the tests run side by side, and torch's threads would wait for each other."""

import contextlib
import signal

import pytest
import torch
from hypothesis import settings

pytest.register_assert_rewrite("beset_workers", "command_process", "run_files")  # so that a failure shows what was compared, as in a test module
torch.set_num_threads(1)
settings.register_profile("reconverge", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("reconverge")
with contextlib.suppress(ValueError):  # not in the main thread
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:  # as in the background, or under nohup; some tests send these to themselves
            signal.signal(number, handler)
