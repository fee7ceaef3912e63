"""The daily reports: at rest in ``reports/local.<day>.json``."""
