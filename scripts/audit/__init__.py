"""The verb `audit`: on this machine, on Spark, and what-if."""
