"""The bodies of requests and responses as OpenAPI shows them: one pydantic model per shape, with examples.

These models only document. The readers of the domain decide which requests are valid, and `api.responses` writes the
responses. Proved by tests/api/test_openapi.py: real responses fit these models exactly, the models have the members of
the domain's types, and every example is posted and works.
"""
