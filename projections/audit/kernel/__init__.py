"""Deciding whole batches of request records: REQUESTS in, VERDICTS out, at the price of a few look-ups a row."""
