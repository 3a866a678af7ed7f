"""What a run did: the journal while it goes on, the report and the plot after it."""
