"""What trainings leak against how good their samples are."""
