"""The command's fixtures, for every test of this folder."""

from tests.support.command import folder, inforce, inforce_on_both

__all__ = ["folder", "inforce", "inforce_on_both"]
