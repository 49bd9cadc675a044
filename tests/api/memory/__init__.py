"""Attacks on the memory and the places of a real server."""
