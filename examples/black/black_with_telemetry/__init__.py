"""The formatter black, counting with Tallypost how it is used."""
