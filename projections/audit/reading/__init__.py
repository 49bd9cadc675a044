"""Reading request logs: each line gives one request record, or is rejected with its number and the reason."""
