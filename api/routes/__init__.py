"""One module per noun; each offers `ROUTES`, which `api.app` puts into one flat table."""
