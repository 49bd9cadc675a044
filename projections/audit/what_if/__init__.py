"""What if: the requests of the past that would have been decided differently with other changes.

The answer is the audit of a ledger that also holds the proposed changes, each at its moment, with everything else as it
was recorded. Proved by tests/audit/what_if, which record the changes in a copy of the ledger and audit that copy.
"""
