"""The selective scan of state-space models: one function, one file per backend.

`selective_scan` is the only public name. Files beside this one are backends (see `base`); a new
backend is a new file and edits nothing.
"""

from palpate.scan.base import selective_scan

__all__ = ["selective_scan"]
