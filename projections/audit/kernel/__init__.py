"""Decides whole batches of request records over a policy index: REQUESTS in, VERDICTS out."""
