"""What a user can cause: one line, exit code 2, nothing half-written."""

from __future__ import annotations

import signal


class UserError(ValueError):
    """A mistake in what the user gave us, told in one line.

    The message names the file (and line or field), what was found, and what to do.
    `t5study` prints it after `t5study: error:` and exits with code 2; it never shows a traceback for it.
    """


class NoRoom(UserError):
    """A full disk, a quota, or no right to write where a run has to: told as a mistake is, and the process exits with
    74 (EX_IOERR), so that a script can tell it from one. The same command goes on when there is room."""


class Missing(UserError):
    """What was asked for is not there at all: nothing damaged, nothing mistaken."""


class Lost(Exception):
    """Another rank, or the thread that makes batches, has died or no longer answers. Nothing is mistaken and no step
    is lost but those since the last checkpoint: exits with 75 as after a scheduler's signal, to be run again."""

    code = 75


class Stopped(Exception):
    """A run was asked to stop (Ctrl-C, or a scheduler's signal) and has saved what it had.

    `code` is what the process should exit with: 130 after Ctrl-C, 75 (EX_TEMPFAIL, "run me again") after the others.
    """

    def __init__(self, signum: int):
        super().__init__(f"stopped by signal {signum}; run the same command again to go on")
        self.signum = signum
        self.code = 130 if signum == signal.SIGINT else 75
