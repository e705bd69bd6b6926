"""Writers used by fixtures.  A writer function takes the path of the file it has to write."""
