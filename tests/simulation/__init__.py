"""Whole batches on a virtual clock, against a model of the service: every run follows from one seed."""
