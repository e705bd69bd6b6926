"""Reads fixtures back independently of torch, and checks what was read against torch."""
