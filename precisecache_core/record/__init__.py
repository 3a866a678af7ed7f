"""What a run did: the journal during the run, the report and the plot after it."""
