"""Documents on their way: at rest in ``uploads/pending``, ``uploads/sent`` and ``uploads/refused``."""
