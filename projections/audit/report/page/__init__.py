"""The report as one HTML page: here the numbers, positions and texts; the markup is in `templates/`."""
