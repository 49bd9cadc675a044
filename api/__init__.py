"""The HTTP API; `api/README.md` has its wire contract. Holds no rule of the domain."""
