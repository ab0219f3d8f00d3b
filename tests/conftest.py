"""What every test relies on: Ctrl-C works, in this process and in those it starts.

A shell that starts a command in the background has it ignore SIGINT, and Python and all its children then keep
ignoring it: a test that sends Ctrl-C would wait for nothing.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
