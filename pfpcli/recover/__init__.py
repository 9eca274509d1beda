"""Recover: what a cut network is given back, without labels."""
