"""The audit on a Spark cluster: where rows are read, decided and written; no meaning of its own."""
