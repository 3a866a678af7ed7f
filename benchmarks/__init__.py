"""One command per table or figure; results/ keeps what they printed."""
