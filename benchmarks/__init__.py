"""One command per table; what they printed is kept in results/."""
