"""The audit on a Spark cluster: executors read, decide and write rows by the same code as one machine."""
