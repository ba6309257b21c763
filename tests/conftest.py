"""One thread for torch: tests run beside each other and measure nothing, and more threads only fight over the cores."""

import sys


def pytest_runtest_setup(item):
    torch = sys.modules.get("torch")  # not imported for those tests that need none
    if torch is not None:
        torch.set_num_threads(1)
