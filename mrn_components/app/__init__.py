"""What the `mrn` command does, one verb a module."""
