"""The endpoints, one module per noun. Each has `ROUTES`, which `api.app` puts into one flat table."""
