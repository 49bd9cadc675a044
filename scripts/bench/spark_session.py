"""Starts a session with Spark, as an audit does, and ends it: `python -m scripts.bench.spark_session MASTER`."""

import sys

from projections.audit.spark.session import session


def main() -> None:
    with session(sys.argv[1], {}):
        pass


if __name__ == "__main__":
    main()
