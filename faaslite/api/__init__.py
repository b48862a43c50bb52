"""What users and the parts of the platform say to each other: the Function kind, and wire messages. Data, no I/O."""
