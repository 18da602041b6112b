"""Measures of what the client costs, beside the least a program can do and beside other clients.

`python -m benchmarks NAME` prints one of them as a table and writes it as JSON.
"""
