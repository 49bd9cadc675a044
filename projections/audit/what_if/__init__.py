"""What if: which requests of the past would have been decided otherwise, had other changes been made.

The law: the answer is the audit of a ledger in which the proposed changes stand, each at its moment, and everything
else as it was said. Proved by tests/audit/what_if, which make the changes in a copy of the ledger and audit that.
"""
