"""One module per noun; each offers `calls`, which `api.app` puts into one flat table."""
