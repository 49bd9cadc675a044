"""The report as one HTML page: here is what the page must compute; its markup and words are in `templates/`."""
