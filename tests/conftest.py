"""One thread for torch: tests run beside each other and measure nothing, and more threads only fight over the cores."""

import signal
import sys


def pytest_runtest_setup(item):
    torch = sys.modules.get("torch")  # not imported for those tests that need none
    if torch is not None:
        torch.set_num_threads(1)


# A shell that starts the tests in the background has them ignore SIGINT, and every process they start would too: no test of
# Ctrl-C could pass.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
