"""For an application's makers: what a declaration says, read once more with a person's eyes."""
