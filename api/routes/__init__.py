"""One module per noun; each offers `routes`, which `api.app` puts into one flat table."""
