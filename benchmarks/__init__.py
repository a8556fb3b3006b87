"""Alternatives compared in one run, printed as tables: `make bench`, or `python -m benchmarks NAME ...`."""
