"""Simulated worlds: whole batches on a virtual clock against a model of the service, each decided by one seed."""
