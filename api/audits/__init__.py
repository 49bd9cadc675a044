"""Audits of uploaded logs: kept in a folder, run outside the serving process."""
