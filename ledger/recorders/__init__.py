"""Where events are kept: one module per database, one contract (`contract.py`), one test suite (tests/contracts)."""
