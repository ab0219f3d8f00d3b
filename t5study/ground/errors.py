"""What a user can cause: one line, exit code 2, nothing half-written."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user gave us, told in one line.

    The message names the file (and line or field), what was found, and what to do.
    `t5study` prints it after `t5study: error:` and exits with code 2; it never shows a traceback for it.
    """
