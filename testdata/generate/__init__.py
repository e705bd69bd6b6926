"""Writes the test fixtures and what a correct reader must say about each of them.

``python -m generate --help`` (from the testdata folder) says how to run it; testdata/README.md says what it makes.

    oracle/    reads a written fixture back without importing anything from it, and compares the result with torch
    writers/   byte-level writers for zip archives and pickles, and torch.save with reproducible output
    families/  the fixtures themselves, one module per kind
    samples    the objects that fixtures contain; models: the classes among them
    registry   writes one fixture, asks the oracle and torch about it, keeps the entry for expected.json
    check      compares two expected.json documents
    cli        command line
"""
