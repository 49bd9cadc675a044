"""What an audit found, counted as it streams by, and put together for people and programs."""
