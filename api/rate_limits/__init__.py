"""Rate limits: requests per principal, and failed sign-ins per address."""
